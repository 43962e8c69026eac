// Uses a page as people do; prints what it says of an image, and keeps drawn.png: URL FILE
import { chromium } from 'playwright-core';

const [url, file] = process.argv.slice(2);
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic',
  '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args });
const page = await browser.newPage();
const $ = (selector) => page.locator(selector);
const said = (text) => $('#status').filter({ hasText: text }).waitFor();
const errors = [], requests = [];
page.on('console', (message) => errors.push(message.text()));
page.on('pageerror', (error) => errors.push(error.message));
page.on('request', (request) => requests.push(request.url()));
await page.goto(url);
await said('Ready');
await $('input').first().setInputFiles(file);
await said('Done');
// What a worker draws arrives behind its messages; an empty canvas is 300 pixels wide.
await page.waitForFunction(() => document.querySelector('canvas').width !== 300);
const items = await $('li').allTextContents();
await $('canvas').evaluate((it) => { it.style = 'position: fixed; inset: 0; max-width: none'; });
await $('canvas').screenshot({ path: 'drawn.png' });
if (await $('#score').isVisible()) {
  await $('#score input').press('End');
  await said('Nothing found');
  await $('#score input').press('Home');
  await said('Done');
}
const dataTransfer = await page.evaluateHandle(() => new DataTransfer());
await dataTransfer.evaluate((it) => it.items.add(new File(['words'], '<i>.jpg')));
await $('main').dispatchEvent('drop', { dataTransfer });
await said('<i>.jpg is no image');
await $('#camera').press('Enter');
await said('is on');
await page.waitForFunction(() => document.querySelector('canvas').width === 640);
await $('#camera').press('Enter');
await said('is off');
page.removeAllListeners();
const refused = () => new Promise((resolve) => {
  self.addEventListener('securitypolicyviolation', (event) => resolve(event.blockedURI));
  fetch('https://example.org/').catch(() => {});
});
const worker = page.workers().find((it) => it.url().endsWith('/worker.js'));
const blocked = [await page.evaluate(refused), await worker.evaluate(refused)];
const isolated = await page.evaluate('crossOriginIsolated');
console.log(JSON.stringify({ errors, requests, items, blocked, isolated }));
await browser.close();
