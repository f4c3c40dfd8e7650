// View: which part of the sample is on the screen. nm are positions of the table (the centre of the
// movie's first pixel is 0, y points down); px are CSS pixels of the picture.

const LEAST_NM_PER_PX = 0.1;
const BAR_SHARE = 0.28; // of the width, at most
const MARGIN = 1.03;

function fittedView(field, width, height) {
  const across = (field.right - field.left) / width;
  const down = (field.bottom - field.top) / height;
  const x = (field.left + field.right) / 2;
  const y = (field.top + field.bottom) / 2;
  return { x, y, scale: MARGIN * Math.max(across, down), width, height };
}

function xOnScreen(view, nm) {
  return (nm - view.x) / view.scale + view.width / 2;
}

function yOnScreen(view, nm) {
  return (nm - view.y) / view.scale + view.height / 2;
}

function placeOnScreen(view, px, py) {
  return {
    x: view.x + (px - view.width / 2) * view.scale,
    y: view.y + (py - view.height / 2) * view.scale,
  };
}

// The view with its centre on the field and its scale between the closest and the whole field.
function bounded(view, field) {
  const whole = fittedView(field, view.width, view.height);
  const scale = Math.min(Math.max(view.scale, LEAST_NM_PER_PX), whole.scale);
  if (scale === whole.scale) return whole;
  return {
    ...view,
    scale,
    x: Math.min(Math.max(view.x, field.left), field.right),
    y: Math.min(Math.max(view.y, field.top), field.bottom),
  };
}

// Zoom so that what is at (px, py) stays there; a factor above 1 magnifies.
function zoomed(view, field, factor, px, py) {
  const place = placeOnScreen(view, px, py);
  const { scale } = bounded({ ...view, scale: view.scale / factor }, field);
  return bounded({
    ...view,
    scale,
    x: place.x - (px - view.width / 2) * scale,
    y: place.y - (py - view.height / 2) * scale,
  }, field);
}

function panned(view, field, dx, dy) {
  return bounded({ ...view, x: view.x - dx * view.scale, y: view.y - dy * view.scale }, field);
}

// Largest of 1, 2 or 5 times a power of ten that is not above a length.
function roundLength(nm) {
  const power = 10 ** Math.floor(Math.log10(nm) + 1e-9);
  return power * ([5, 2, 1].find((step) => step * power <= nm * (1 + 1e-9)) || 1);
}

function scaleBar(view) {
  const nm = roundLength(BAR_SHARE * view.width * view.scale);
  const label = nm < 1000 ? `${plain(nm, 3)} nm` : `${plain(nm / 1000, 3)} µm`;
  return { nm, px: nm / view.scale, label };
}

// A number with so many significant digits, thousands apart, never with an exponent.
function plain(value, digits) {
  if (!Number.isFinite(value)) return "unknown";
  return value.toLocaleString("en-GB", { maximumSignificantDigits: digits });
}

function fixed(value, decimals) {
  if (!Number.isFinite(value)) return "unknown";
  return value.toLocaleString("en-GB", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });
}
