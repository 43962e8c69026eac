// Chooses files in a page, uses its camera, and prints what it says and draws: URL FILE...
import { chromium } from 'playwright-core';

const [url, ...files] = process.argv.slice(2);
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic',
  '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args });
const page = await browser.newPage();
const said = (text) => page.locator('#status', { hasText: text }).waitFor();
const result = { errors: [], requests: [], files: [] };
page.on('console', (message) => result.errors.push(message.text()));
page.on('pageerror', (error) => result.errors.push(error.message));
page.on('request', (request) => result.requests.push(request.url()));
await page.goto(url);
await said('Ready');
for (const file of files) {
  await page.locator('input').first().setInputFiles(file);
  await said(/Done|no image/);
  // What a worker draws arrives behind its messages; an empty canvas is 300 pixels wide.
  await page.waitForFunction(() => document.querySelector('canvas').width !== 300);
  const status = await page.locator('#status').textContent();
  const items = await page.locator('li').allTextContents();
  const canvas = page.locator('canvas');
  await canvas.evaluate((it) => { it.style = 'position: fixed; inset: 0; max-width: none'; });
  const drawn = (await canvas.screenshot()).toString('base64');
  result.files.push([status, items, drawn]);
}
await page.locator('#camera').press('Enter');
await said('is on');
await page.waitForFunction(() => document.querySelector('canvas').width === 640);
await page.locator('#camera').press('Enter');
await said('is off');
result.isolated = await page.evaluate('crossOriginIsolated');
console.log(JSON.stringify(result));
await browser.close();
