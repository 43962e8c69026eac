// Where images come from, and what is said of them. What takes long happens in worker.js.

const MAX_PIXELS = 2 ** 24; // of a canvas, on phones
const $ = (selector) => document.querySelector(selector);
const inputs = document.querySelectorAll('input[type=file]');
const worker = new Worker('worker.js', { type: 'module' });
const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
let about, ready;

function say(textContent, isError) {
  Object.assign($('#status'), { textContent, className: isError ? 'error' : '' });
}

function fail({ message = 'the worker does not start' }) {
  stopCamera();
  const memory = 'There is not enough memory: reload, and take a smaller image or network.';
  say(/memory|alloc/i.test(message) ? memory : `That went wrong: ${message}`, true);
}

async function start() {
  const canvas = $('canvas').transferControlToOffscreen?.();
  if (!window.WebAssembly || !canvas) throw new Error('this browser has no WebAssembly, or is old.');
  about = await (await fetch('network.json')).json();
  $('#name').textContent = about.name;
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
    if (!running) return; // only drawn again
    const [ran, prepared] = [running, preprocessing].map((time) => `${time.toFixed(1)} ms`);
    $('#times').textContent = `running ${ran}, preprocessing ${prepared}, ${ready}`;
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
    return say('The camera is off.');
  }
  if (!navigator.mediaDevices) {
    throw new Error('the camera needs https, or localhost; choosing and taking photos does not.');
  }
  const camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  stopCamera(); // that of another click meanwhile
  video.srcObject = camera;
  $('#camera').setAttribute('aria-pressed', true);
  say('The camera is on.');
  await video.play();
  return send(video);
}

for (const input of inputs) {
  input.addEventListener('change', () => {
    if (input.files.length) show(input.files[0]);
    input.value = ''; // so that the same file can be chosen again
  });
}
$('#camera').addEventListener('click', () => toggleCamera().catch(fail));
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
