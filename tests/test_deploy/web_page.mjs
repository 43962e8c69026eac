// Chooses files in a page, uses its camera, and prints what it says and draws.
// Runs in a folder with playwright-core: web_page.mjs CHROMIUM URL FILE...
import { chromium } from 'playwright-core';

const [executablePath, url, ...files] = process.argv.slice(2);
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic'];
for (const what of ['device', 'ui']) args.push(`--use-fake-${what}-for-media-stream`);
const browser = await chromium.launch({ executablePath, args });
const page = await browser.newPage();
const said = (text) => page.locator('#status', { hasText: text }).waitFor();
const errors = [], result = { requests: [], shown: {} };
page.on('console', (message) => errors.push(message.text()));
page.on('pageerror', (error) => errors.push(error.message));
page.on('request', (request) => result.requests.push(request.url()));
await page.goto(url);
await said('Ready');
for (const file of files) {
  await page.locator('input').first().setInputFiles(file);
  await said(/Done|no image/);
  result.shown[file] = {
    status: await page.locator('#status').textContent(),
    items: await page.locator('li').allTextContents(),
    drawn: await page.evaluate(async () => {
      const canvas = document.querySelector('canvas');
      const copy = new OffscreenCanvas(canvas.width, canvas.height);
      copy.getContext('2d').drawImage(canvas, 0, 0);
      const reader = new FileReader();
      reader.readAsDataURL(await copy.convertToBlob());
      await new Promise((done) => { reader.onload = done; });
      return reader.result.split(',')[1];
    }),
  };
}
await page.click('#camera');
await said('is on');
await page.waitForFunction(() => document.querySelector('canvas').width === 640);
await page.click('#camera');
await said('The camera is off');
result.errors = [...errors];
result.isolated = await page.evaluate('crossOriginIsolated');
result.blocked = await page.evaluate(() => new Promise((done) => {
  addEventListener('securitypolicyviolation', (event) => done(event.blockedURI));
  fetch('https://example.org').catch(() => 0);
}));
console.log(JSON.stringify(result));
await browser.close();
