// Where images come from, and what is said of them. What takes long happens in worker.js.

const MAX_PIXELS = 2 ** 24; // of a canvas, on phones
const $ = (selector) => document.querySelector(selector);
const worker = new Worker('worker.js', { type: 'module' });
const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true });
let ready;

function say(textContent, isError) {
  Object.assign($('#status'), { textContent, className: isError ? 'error' : '' });
}

function fail({ message = 'the worker does not start' }) {
  stopCamera();
  const memory = 'There is not enough memory: reload, and take a smaller image or network.';
  say(/memory|alloc/i.test(message) ? memory : `That went wrong: ${message}`, true);
}

const received = {
  fail,
  progress(part) { $('progress').value = part; },
  load({ kind }) {
    ready = `loading ${Math.round(performance.now())} ms, threads: ${threads}`;
    $('progress').hidden = true;
    $('#score').hidden = kind !== 'detector';
    document.querySelectorAll(':disabled').forEach((it) => { it.disabled = false; });
    say('Ready: choose an image.');
  },
  draw({ list, width, height, name, running, preprocessing }) {
    $('canvas').hidden = false;
    $('#results').replaceChildren(...list.map(({ text, colour }) => {
      const item = document.createElement('li');
      item.appendChild(document.createElement('i')).style.background = colour;
      item.append(text);
      return item;
    }));
    const done = list.length ? 'Done' : 'Nothing found';
    if (name) say(`${done}: ${name}, ${width} × ${height} pixels.`); // or it is the camera's
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
  send(file, file.name).catch(() => say(`${file.name} is no image that this browser reads.`, true));
}

function stopCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}

async function toggleCamera() {
  const wasOn = video.srcObject;
  stopCamera();
  if (wasOn) return say('The camera is off.');
  const { mediaDevices } = navigator;
  if (!mediaDevices) throw new Error('the camera needs https, or localhost.');
  video.srcObject = await mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  say('The camera is on.');
  await video.play();
  return send(video);
}

$('input[type=file]').onchange = ({ target }) => {
  show(target.files[0]);
  target.value = ''; // so that the same file can be chosen again
};
$('#camera').onclick = () => toggleCamera().catch(fail);
$('#score input').oninput = () => {
  $('#score output').textContent = least().toFixed(2);
  worker.postMessage({ type: 'draw', least: least() });
};
window.ondragover = (event) => event.preventDefault();
window.ondrop = (event) => {
  event.preventDefault();
  if (ready && event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
};

const canvas = $('canvas').transferControlToOffscreen?.();
const threads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
if (window.WebAssembly && canvas) {
  worker.postMessage({ type: 'load', canvas, threads }, [canvas]);
  say('Loading the network …');
} else fail({ message: 'this browser has no WebAssembly, or cannot draw in a worker.' });
