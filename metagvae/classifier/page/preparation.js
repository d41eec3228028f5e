'use strict';
// How a picture becomes the network's input: the steps of metagvae/classifier/inputs.py, in the same order.

// Weights of each of `out` samples over `count`: a triangle as wide as the step (torch's antialiased bilinear filter).
function filterOf(count, out) {
  const scale = count / out, support = Math.max(scale, 1), inverse = 1 / support, rows = [];
  for (let i = 0; i < out; i++) {
    const centre = scale * (i + 0.5);
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), count);
    const weights = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      const weight = Math.max(0, 1 - Math.abs((x - centre + 0.5) * inverse));
      weights.push(weight);
      sum += weight;
    }
    rows.push([first, weights.map((weight) => weight / sum)]);
  }
  return rows;
}

// A square plane of numbers brought to size x size.
function resized(plane, side, size) {
  if (side === size) return plane;
  const filter = filterOf(side, size), across = new Float32Array(side * size), made = new Float32Array(size * size);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < size; x++) {
      const [first, weights] = filter[x];
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * plane[y * side + first + k];
      across[y * size + x] = sum;
    }
  }
  for (let y = 0; y < size; y++) {
    const [first, weights] = filter[y];
    for (let x = 0; x < size; x++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * across[(first + k) * size + x];
      made[y * size + x] = sum;
    }
  }
  return made;
}

// Float32Array [channels * size * size] in [0, 1] of an ImageData: white where transparent, the square in the middle.
function prepared(image, about) {
  const { data, width, height } = image, { channels, size, white, invert } = about;
  const side = Math.min(width, height), top = (height - side) >> 1, left = (width - side) >> 1;
  const planes = Array.from({ length: channels }, () => new Float32Array(side * side));
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const at = 4 * ((y + top) * width + x + left), alpha = data[at + 3];
      const [r, g, b] = [0, 1, 2].map((c) =>
        alpha === 255 ? data[at + c] : Math.round((data[at + c] * alpha + 255 * (255 - alpha)) / 255));
      if (channels === 1) planes[0][y * side + x] = 0.299 * r + 0.587 * g + 0.114 * b;
      else [r, g, b].forEach((value, c) => { planes[c][y * side + x] = value; });
    }
  }
  const made = new Float32Array(channels * size * size);
  planes.forEach((plane, c) => resized(plane, side, size).forEach((value, i) => {
    const bright = Math.min(Math.max(value / white, 0), 1);
    made[c * size * size + i] = invert ? 1 - bright : bright;
  }));
  return made;
}
