// Runs the network and draws what it finds, beside the page.

import * as ort from './runtime/dist/ort.wasm.min.mjs';

const pixels = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
let about, target, session, shown;

const nameOf = (label) => about.classes?.[label] ?? `class ${label}`;
const colourOf = (label) => about.palette[label % about.palette.length] ?? [0, 0, 0];

async function load({ canvas, threads }) {
  about = await (await fetch('network.json')).json();
  target = canvas.getContext('2d');
  const { ok, status, body } = await fetch('network.onnx');
  if (!ok) throw new Error(`network.onnx: ${status}`);
  let bytes = 0;
  const transform = (chunk, out) => {
    bytes += chunk.length;
    postMessage(['progress', bytes / about.bytes]);
    out.enqueue(chunk);
  };
  const stream = body.pipeThrough(new TransformStream({ transform }));
  const network = await new Response(stream).arrayBuffer();
  const wasmPaths = new URL('runtime/dist/', self.location).href;
  Object.assign(ort.env.wasm, { wasmPaths, numThreads: threads });
  session = await ort.InferenceSession.create(network, { logSeverityLevel: 3 });
  postMessage(['load', about]);
}

// Scales an image bilinearly, as OpenCV does, in its ratio: a classifier sees as much of the middle
// as fits, the others all of it, at the top left of black. Returns uint8 (1, 3, H, W), blue first,
// and the width and height that it fills.
function preprocess(image) {
  const { width, height } = image, [h, w] = about.traced_size;
  const middle = about.kind === 'classifier';
  const scale = (middle ? Math.max : Math.min)(w / width, h / height);
  const seen = middle ? [w / scale, h / scale] : [width, height];
  const used = seen.map((side) => Math.max(Math.round(side * scale), 1));
  const [columns, rows] = [width, height].map((length, axis) => {
    const step = seen[axis] / used[axis], start = (length - seen[axis] + step - 1) / 2;
    return Array.from({ length: used[axis] }, (_, i) => {
      const at = Math.min(Math.max(start + i * step, 0), length - 1), low = Math.floor(at);
      return [low, Math.min(low + 1, length - 1), at - low];
    });
  });
  Object.assign(pixels.canvas, { width, height });
  pixels.drawImage(image, 0, 0);
  const { data } = pixels.getImageData(0, 0, width, height);
  const input = new Uint8Array(3 * h * w);
  rows.forEach(([top, bottom, q], y) => columns.forEach(([left, right, p], x) => {
    for (let k = 0; k < 3; k++) {
      const at = (row, column) => data[4 * (row * width + column) + k];
      const between = (row) => (1 - p) * at(row, left) + p * at(row, right);
      input[((2 - k) * h + y) * w + x] = Math.round((1 - q) * between(top) + q * between(bottom));
    }
  }));
  return [new ort.Tensor('uint8', input, [1, 3, h, w]), used];
}

// What the outputs of each kind say: items to list and, of label maps, a layer to draw.
const read = {
  classifier({ scores }) {
    const items = Array.from(scores.data, (score, label) => ({ label, score }));
    return { items: items.sort((a, b) => b.score - a.score).slice(0, 5) };
  },
  segmentor({ logits: { data, dims: [, classes, h, w] } }, image, [width, height]) {
    const cut = Math.log(about.threshold / (1 - about.threshold)); // of a single class
    const counts = Array(classes + 1).fill(0);
    const layer = paint(width, height, (i) => {
      const at = Math.floor(i / width) * w + i % width, score = (k) => data[k * h * w + at];
      let label = classes === 1 ? Number(score(0) > cut) : 0;
      for (let k = 1; k < classes; k++) if (score(k) > score(label)) label = k;
      counts[label]++;
      return [...colourOf(label), 128];
    });
    const items = counts.map((count, label) => ({ label, score: count / (width * height) }));
    return { layer, items: items.filter(({ score }) => score) };
  },
  detector({ boxes, scores, labels, masks }, image, used) {
    const scales = [image.width / used[0], image.height / used[1]], [,, h, w] = masks?.dims ?? [];
    const items = Array.from(scores.data, (score, i) => {
      const label = Number(labels.data[i]), sides = [...boxes.data.slice(4 * i, 4 * i + 4)];
      const box = sides.map((side, k) => Math.min(side, used[k % 2]) * scales[k % 2]);
      const opacity = (k) => (masks.data[i * h * w + k] < about.mask_threshold ? 0 : 128);
      const mask = masks && paint(w, h, (k) => [...colourOf(label), opacity(k)]);
      return { label, score, box, mask };
    });
    return { items: items.filter(({ label }) => label >= 0) }; // -1: none is found
  },
};

// Makes a canvas of its pixels' red, green, blue and alpha.
function paint(width, height, valueOf) {
  const layer = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) layer.data.set(valueOf(i), 4 * i);
  const painted = new OffscreenCanvas(width, height);
  painted.getContext('2d').putImageData(layer, 0, 0);
  return painted;
}

function drawBox({ label, score, box: [x, y, right, bottom], mask }, image) {
  if (mask) target.drawImage(mask, x, y, right - x, bottom - y);
  const unit = Math.max(image.width, image.height, 320) / 320;
  target.font = `${9 * unit}px sans-serif`;
  target.lineWidth = unit;
  target.strokeStyle = target.fillStyle = `rgb(${colourOf(label)})`;
  target.strokeRect(x, y, right - x, bottom - y);
  const text = `${nameOf(label)} ${score.toFixed(2)}`;
  const { width } = target.measureText(text);
  const left = Math.min(x, image.width - width), top = Math.max(y - 11 * unit, 0);
  target.fillRect(left, top, width, 11 * unit);
  target.fillStyle = 'black';
  target.fillText(text, left, top + 9 * unit);
}

function draw({ least, ...times }) {
  if (!shown) return;
  const { image, name, layer } = shown, { width, height } = image;
  const items = shown.items.filter(({ box, score }) => !box || score >= least);
  Object.assign(target.canvas, { width, height });
  target.drawImage(image, 0, 0);
  target.imageSmoothingEnabled = !layer;
  if (layer) target.drawImage(layer, 0, 0, width, height);
  for (const item of items.toReversed()) if (item.box) drawBox(item, image); // the best on top
  const list = items.map(({ label, score, box }) => {
    const sides = box?.map((side) => side.toFixed(1));
    const value = box ? `${score.toFixed(2)} at ${sides}` : `${(100 * score).toFixed(1)} %`;
    return { text: `${nameOf(label)} ${value}`, colour: `rgb(${colourOf(label)})` };
  });
  postMessage(['draw', { width, height, name, list, ...times }]);
}

async function run({ image, name, least }) {
  const begun = performance.now();
  const [input, used] = preprocess(image);
  const prepared = performance.now(), preprocessing = prepared - begun;
  const outputs = await session.run({ image: input });
  const running = performance.now() - prepared;
  shown?.image.close();
  shown = { image, name, ...read[about.kind](outputs, image, used) };
  draw({ least, running, preprocessing });
}

let queue = Promise.resolve(); // one at a time
self.onmessage = ({ data: { type, ...message } }) => {
  queue = queue.then(() => ({ load, run, draw })[type](message)).catch(
    // The runtime throws bare numbers where memory ends.
    (error) => postMessage(['fail', { message: error.message ?? 'out of memory' }]));
};
