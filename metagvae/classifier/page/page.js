// The page: unpacks the runtime and the network, takes pictures from a file, the pad or the camera, shows the answer.
const MOST_BYTES = 8 * 2 ** 20, MOST_SHOWN = 5, EVERY = 400;
const at = (id) => document.getElementById(id);
const about = JSON.parse(at('settings').textContent);

// Bytes of a script element's text: base 85 as Python's b85encode, with a full stop for '<', then gzip.
async function unpacked(id) {
  const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;.=>?@^_`{|}~';
  const value = new Uint8Array(128);
  for (let i = 0; i < 85; i++) value[digits.charCodeAt(i)] = i;
  const [length, text] = at(id).textContent.split(' '), bytes = new Uint8Array(text.length / 5 * 4);
  for (let i = 0, j = 0; i < text.length; j += 4) {
    let number = 0;
    for (const end = i + 5; i < end; i++) number = number * 85 + value[text.charCodeAt(i)];
    bytes[j] = number >>> 24; bytes[j + 1] = number >>> 16; bytes[j + 2] = number >>> 8; bytes[j + 3] = number;
  }
  at(id).textContent = '';
  const small = new Blob([bytes.subarray(0, Number(length))]);  // base 85 fills up with zeros
  return new Uint8Array(await new Response(small.stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer());
}

// A module of the page's own. Its address is no base for others, which it works out and never opens: it gets the binary.
async function module(id) {
  const code = new TextDecoder().decode(await unpacked(id)).replaceAll('import.meta.url', '"https://page.invalid/"');
  return URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
}

async function started() {
  const ort = await import(await module('code'));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs: await module('glue') };
  ort.env.wasm.wasmBinary = await unpacked('wasm');
  const session = await ort.InferenceSession.create(await unpacked('model'), { executionProviders: ['wasm'] });
  return async (image) => {
    const { channels, size } = about;
    const input = new ort.Tensor('float32', prepared(image, about), [1, channels, size, size]);
    const { probabilities, novelty } = await session.run({ images: input });
    return { probabilities: Array.from(probabilities.data), novelty: novelty.data[0] };
  };
}

const ready = started();

async function decoded(file) {
  const name = file.name || 'the image';
  if (file.size > MOST_BYTES) {
    const size = (file.size / 2 ** 20).toFixed(1);
    throw new Error(`${name} has ${size} MB; images of at most 8 MB are taken. Make it smaller: a side of a thousand pixels is plenty.`);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
  } catch {
    throw new Error(`${name} is not an image that this browser can read; choose a PNG or JPEG file.`);
  }
  return pixels(bitmap, bitmap.width, bitmap.height);
}

function pixels(source, width, height) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  pen.drawImage(source, 0, 0);
  return pen.getImageData(0, 0, width, height);
}

// What the classifier says of a file: the label, or "none of these", and the numbers behind it.
async function classify(file) { return answered(await decoded(file)); }

async function answered(image) {
  const started = performance.now(), { probabilities, novelty } = await (await ready)(image);
  const best = probabilities.indexOf(Math.max(...probabilities));
  const label = novelty > about.threshold ? about.none : about.classes[best];
  return { label, probabilities, novelty, milliseconds: performance.now() - started };
}

function show({ label, probabilities, novelty, milliseconds }) {
  at('verdict').textContent = label;
  const ranked = probabilities.map((p, i) => [p, about.classes[i]]).sort((a, b) => b[0] - a[0]).slice(0, MOST_SHOWN);
  at('bars').replaceChildren(...ranked.map(([p, name]) => {
    const row = document.createElement('div'), words = document.createElement('span'), track = document.createElement('div');
    const fill = document.createElement('i'), number = document.createElement('span');
    row.className = 'bar'; track.className = 'track'; words.textContent = words.title = name;
    fill.style.width = `${100 * p}%`; number.textContent = `${(100 * p).toFixed(1)} %`;
    track.append(fill); row.append(words, track, number);
    return row;
  }));
  const far = novelty > about.threshold ? `above ${about.threshold}: unlike every class` : `up to ${about.threshold} is like a class`;
  at('novelty').textContent = `Novelty ${novelty.toFixed(2)} (${far}). ${milliseconds.toFixed(0)} ms.`;
}

function say(sentence) {
  at('verdict').textContent = sentence;
  at('bars').replaceChildren();
  at('novelty').textContent = '';
}

let asked = 0;  // an answer that comes after a later question is not shown
async function ask(image) {
  const turn = ++asked;
  try {
    const answer = await answered(await image);
    if (turn === asked) show(answer);
  } catch (error) {
    if (turn === asked) say(error.message);
  }
}

function chosen(file) {
  if (!file) return;
  URL.revokeObjectURL(at('shown').src);
  at('shown').src = URL.createObjectURL(file);
  at('shown').hidden = false;
  at('shown').onerror = () => { at('shown').hidden = true; };
  ask(decoded(file));
}
at('file').addEventListener('change', () => chosen(at('file').files[0]));
const drop = document.querySelector('.drop');
drop.addEventListener('dragover', (event) => { event.preventDefault(); drop.classList.add('over'); });
drop.addEventListener('dragleave', () => drop.classList.remove('over'));
drop.addEventListener('drop', (event) => {
  event.preventDefault();
  drop.classList.remove('over');
  chosen(event.dataTransfer.files[0]);
});

// Bright strokes on black only where the examples came so; else dark ink on white paper.
const [paper, ink] = about.polarity === 'ink' && !about.invert ? ['black', 'white'] : ['white', 'black'];
const pad = at('pad'), pen = pad.getContext('2d', { willReadFrequently: true });
const wipe = () => { pen.fillStyle = paper; pen.fillRect(0, 0, pad.width, pad.height); };
const place = (event) => {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
};
const line = (from, to) => {
  [pen.strokeStyle, pen.lineWidth, pen.lineCap] = [ink, 15, 'round'];
  pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke();
};
let last = null;
wipe();
pad.addEventListener('pointerdown', (event) => { event.preventDefault(); last = place(event); line(last, last); });
window.addEventListener('pointermove', (event) => { if (last) { const to = place(event); line(last, to); last = to; } });
window.addEventListener('pointerup', () => {
  if (last) { last = null; ask(pen.getImageData(0, 0, pad.width, pad.height)); }
});
at('wipe').addEventListener('click', () => { wipe(); asked++; say('Draw something.'); });

const video = at('video');
let stream = null, timer = null;
function stop() {
  clearInterval(timer);
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  at('switch').textContent = 'Start the camera';
}
at('switch').addEventListener('click', async () => {
  if (stream) { stop(); return; }
  try {
    if (!navigator.mediaDevices) throw new Error('this browser gives a page opened from a file no camera');
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  } catch (error) {
    say(`No camera: ${error.message}. Take a picture and choose it as a file.`);
    return;
  }
  video.srcObject = stream;
  await video.play();
  at('switch').textContent = 'Stop the camera';
  timer = setInterval(() => {
    if (video.videoWidth) ask(pixels(video, video.videoWidth, video.videoHeight));
  }, EVERY);
});

const prompts = { upload: 'Choose an image.', draw: 'Draw something.', camera: 'Start the camera.' };
for (const tab of document.querySelectorAll('[role=tab]')) {
  tab.addEventListener('click', () => {
    for (const other of document.querySelectorAll('[role=tab]')) {
      other.setAttribute('aria-selected', String(other === tab));
      at(other.getAttribute('aria-controls')).hidden = other !== tab;
    }
    stop();
    asked++;
    say(prompts[tab.getAttribute('aria-controls')]);
  });
}

at('classes').textContent = `It knows ${about.classes.length} classes: ${about.classes.slice(0, 12).join(', ')}${about.classes.length > 12 ? ', …' : ''}.`;
at('about').textContent = `Runs on ${about.runtime}.`;
ready.then(() => say(prompts.upload), (error) => say(`This browser cannot run the classifier: ${error.message}`));
