// Where images come from, and what is said of them. What takes long happens in worker.js.

const MAX_PIXELS = 2 ** 24; // of a canvas, on phones
const $ = (selector) => document.querySelector(selector);
const inputs = document.querySelectorAll('input[type=file]');
const worker = new Worker('worker.js', { type: 'module' });
const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
let about, ready, asking = false;

function say(text, isError = false) {
  $('#status').textContent = text;
  $('#status').classList.toggle('error', isError);
}

function fail({ message = 'the worker does not start' }) {
  stopCamera();
  say(/memory|alloc/i.test(message) ? 'There is not enough memory. Close other pages, reload this ' +
    'one, and take a smaller image or network.' : `That went wrong: ${message}`, true);
}

async function start() {
  const canvas = $('canvas').transferControlToOffscreen?.();
  if (!('WebAssembly' in window && canvas)) {
    throw new Error('this browser has no WebAssembly, or is older than 2023.');
  }
  about = await (await fetch('network.json')).json();
  $('#name').textContent = about.name;
  $('#runtime').textContent = about.runtime;
  say('Loading the network …');
  const threads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  worker.postMessage({ type: 'load', about, canvas, threads }, [canvas]);
}

const received = {
  fail,
  progress(part) { $('progress').value = part; },
  load(threads) {
    ready = `loading ${Math.round(performance.now())} ms, threads: ${threads}`;
    $('progress').hidden = true;
    $('#score').hidden = about.kind !== 'detector';
    for (const input of [...inputs, $('#camera')]) input.disabled = false;
    say('Ready: choose an image.');
  },
  draw({ items, width, height, name, running, preprocessing }) {
    $('canvas').hidden = false;
    $('#results').replaceChildren(...items.map(({ label, score, box }) => {
      const item = document.createElement('li');
      const swatch = item.appendChild(document.createElement('i'));
      swatch.style.background = `rgb(${about.palette[label % about.palette.length]})`;
      const value = box ? `${score.toFixed(2)} at ${box.map((side) => side.toFixed(1))}`
        : `${(100 * score).toFixed(1)} %`;
      item.append(`${about.classes?.[label] ?? `class ${label}`} ${value}`);
      return item;
    }));
    const found = items.length ? 'Done' : 'Nothing found';
    if (name) say(`${found}: ${name}, ${width} × ${height} pixels.`); // or it is the camera's
    if (running === undefined) return; // only drawn again
    $('#times').textContent = `running ${running.toFixed(1)} ms, ` +
      `preprocessing ${preprocessing.toFixed(1)} ms, ${ready}`;
    requestAnimationFrame(() => video.srcObject && send(video).catch(fail));
  },
};
worker.onmessage = ({ data: [type, content] }) => received[type](content);
worker.onerror = fail;

const least = () => Number($('#score input').value);

async function send(source, name) {
  let image = await createImageBitmap(source);
  const scale = Math.sqrt(MAX_PIXELS / (image.width * image.height));
  const resizeWidth = Math.floor(scale * image.width);
  if (scale < 1) image = await createImageBitmap(image, { resizeWidth });
  worker.postMessage({ type: 'run', image, name, least: least() }, [image]);
}

function show(file) {
  stopCamera();
  say(`Running the network on ${file.name} …`);
  send(file, file.name).catch(
    () => say(`${file.name} is no image that this browser reads.`, true));
}

function stopCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  $('#camera').setAttribute('aria-pressed', false);
}

async function toggleCamera() {
  if (video.srcObject) {
    stopCamera();
    say('The camera is off.');
    return;
  }
  if (!navigator.mediaDevices) {
    throw new Error('the camera needs https, or localhost. Choosing and taking photos does not.');
  }
  const wanted = { video: { facingMode: 'environment' } };
  video.srcObject = await navigator.mediaDevices.getUserMedia(wanted);
  $('#camera').setAttribute('aria-pressed', true);
  say('The camera is on.');
  await video.play();
  await send(video);
}

for (const input of inputs) {
  input.addEventListener('change', () => {
    if (input.files.length) show(input.files[0]);
    input.value = ''; // so that the same file can be chosen again
  });
}
$('#camera').addEventListener('click', async () => {
  if (asking) return; // the user is asked for the camera
  asking = true;
  await toggleCamera().catch(fail);
  asking = false;
});
$('#score input').addEventListener('input', () => {
  $('#score output').textContent = least().toFixed(2);
  worker.postMessage({ type: 'draw', least: least() });
});
addEventListener('dragover', (event) => event.preventDefault());
addEventListener('drop', (event) => {
  event.preventDefault();
  if (ready && event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
});
start().catch(fail);
