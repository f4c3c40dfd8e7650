// Raster: rows drawn as Gaussians of their own sigma into a picture of densities.

const REACH = 3; // sigmas
const SHARP = 0.7; // device px; a sigma below is one point between four pixels
const LEAST_SPOT_PX = 1; // sigma of a spot, CSS px, at least, while there are not more than
const FEW_ROWS = 50000; // rows; more fill the picture anyhow
const BRIGHT = 0.98; // share of the lit pixels that the colours tell apart
const MOST_SAMPLES = 20000;

// Density of the kept rows, localizations per square micrometre, (height, width) device pixels.
function densityOf(rows, kept, view, ratio) {
  const width = Math.round(view.width * ratio);
  const height = Math.round(view.height * ratio);
  const picture = { width, height, values: new Float32Array(width * height) };
  const nm = view.scale / ratio;
  const left = view.x - (view.width / 2) * view.scale;
  const top = view.y - (view.height / 2) * view.scale;
  const mass = 1e6 / nm ** 2;
  const widths = sigmaTables(rows, nm);
  const least = kept.length > FEW_ROWS ? 0 : LEAST_SPOT_PX * ratio;
  for (let k = 0; k < kept.length; k++) {
    const i = kept[k];
    // Pixel k reaches from k to k + 1; kernels count from pixel centres.
    const x = (rows.x[i] - left) / nm - 0.5;
    const y = (rows.y[i] - top) / nm - 0.5;
    const sigma = widths.sigma[rows.codes.sigma[i]];
    const sx = Math.max(least, sigma * widths.alongX[rows.codes.shape[i]]);
    const sy = Math.max(least, sigma * widths.alongY[rows.codes.shape[i]]);
    const rx = REACH * sx + 1;
    const ry = REACH * sy + 1;
    if (x < -rx || y < -ry || x > width + rx || y > height + ry) continue;
    if (sx < SHARP && sy < SHARP) addPoint(picture, x, y, mass);
    else addGaussian(picture, x, y, Math.max(sx, SHARP), Math.max(sy, SHARP), mass);
  }
  return picture;
}

// Sigma in pixels by its bin, and what its shape multiplies it with.
function sigmaTables(rows, nm) {
  const { edges } = rows.reading.sigma;
  const levels = rows.about.shape_levels;
  const least = 0.5 / levels;
  const axis = (share) => Math.sqrt(2 * Math.max(share, least));
  const tabled = (length, value) => Float64Array.from({ length }, (_, k) => value(k));
  return {
    sigma: tabled(edges.length + 1, (bin) => (binMiddle(edges, bin) || 0) / nm),
    alongX: tabled(levels + 1, (level) => axis(level / levels)),
    alongY: tabled(levels + 1, (level) => axis(1 - level / levels)),
  };
}

function addPoint({ width, height, values }, x, y, mass) {
  const column = Math.floor(x);
  const row = Math.floor(y);
  const right = x - column;
  const below = y - row;
  for (let r = 0; r < 2; r++) {
    if (row + r < 0 || row + r >= height) continue;
    const part = mass * (r ? below : 1 - below);
    const at = (row + r) * width + column;
    if (column >= 0 && column < width) values[at] += part * (1 - right);
    if (column + 1 >= 0 && column + 1 < width) values[at + 1] += part * right;
  }
}

function addGaussian({ width, height, values }, x, y, sx, sy, mass) {
  const left = Math.max(0, Math.ceil(x - REACH * sx));
  const right = Math.min(width - 1, Math.floor(x + REACH * sx));
  const top = Math.max(0, Math.ceil(y - REACH * sy));
  const bottom = Math.min(height - 1, Math.floor(y + REACH * sy));
  if (left > right || top > bottom) return;
  const peak = mass / (2 * Math.PI * sx * sy);
  const along = new Float32Array(right - left + 1);
  for (let c = left; c <= right; c++) along[c - left] = Math.exp(-0.5 * ((c - x) / sx) ** 2);
  for (let r = top; r <= bottom; r++) {
    const part = peak * Math.exp(-0.5 * ((r - y) / sy) ** 2);
    const at = r * width;
    for (let c = left; c <= right; c++) values[at + c] += part * along[c - left];
  }
}

// The density at which colours end: most lit pixels are below; 0 where none is lit.
function brightDensity({ values }) {
  const stride = Math.max(1, Math.floor(values.length / (8 * MOST_SAMPLES)));
  const lit = [];
  for (let i = 0; i < values.length; i += stride) if (values[i] > 0) lit.push(values[i]);
  if (!lit.length) return 0;
  const sorted = Float32Array.from(lit).sort();
  return sorted[Math.floor(BRIGHT * (sorted.length - 1))];
}

// Colours of densities from 0 to `high`; `colours` holds 256 times red, green, blue.
function colouredPicture({ width, height, values }, high, colours) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const packed = packedColours(colours);
  const scale = 255 / high;
  for (let i = 0; i < values.length; i++) pixels[i] = packed[Math.min(255, values[i] * scale) | 0];
  return image;
}

function packedColours(colours) {
  const bytes = new Uint8ClampedArray(1024);
  for (let k = 0; k < 256; k++) {
    bytes.set(colours.subarray(3 * k, 3 * k + 3), 4 * k);
    bytes[4 * k + 3] = 255;
  }
  return new Uint32Array(bytes.buffer);
}
