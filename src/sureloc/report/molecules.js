// The viewer of molecules: it joins filters, picture, numbers and downloads to the page.

const SLOW_MS = 45; // a picture that takes longer is first shown stretched, then drawn anew
const REST_MS = 120; // without movement before it is drawn anew
const NEAR_PX = { mouse: 14, pen: 18, touch: 28 };
const MOST_MARKS = 300;
const MARK_PX = 6; // half of a mark; smaller ones drown in a bright spot
const KEY_STEP_PX = 60;
const KEY_ZOOM = 1.4;
const MOST_RATIO = 2;

const at = (id) => document.getElementById(id);

class MoleculeViewer {
  constructor(rows, about) {
    this.rows = rows;
    this.about = about;
    this.limits = { ...NO_LIMITS };
    this.kept = keptRows(rows, this.limits);
    this.colours = bytesOf(about.colours);
    this.picture = at("picture");
    this.marks = at("marks");
    this.chosen = null;
    this.brightness = 1;
    this.bright = null; // density at which colours end; null asks for it anew
    this.pointers = new Map();
    this.cost = 0;
    this.timer = 0;
    this.waiting = false;
    this.drawn = null; // the view that the picture shows
  }

  start() {
    this.resize();
    this.showColours();
    new ResizeObserver(() => this.resize()).observe(at("view"));
    listenToPointers(this);
    listenToKeys(this);
    listenToButtons(this);
    listenToFilters(this);
    this.showCounts();
  }

  // --- Where ---

  resize() {
    const width = at("view").clientWidth;
    if (width < 1) return; // not laid out yet; the observer calls again
    const { left, right, top, bottom } = this.about.field;
    const tall = (width * (bottom - top)) / (right - left);
    const height = Math.round(Math.min(Math.max(tall, 240), 0.72 * window.innerHeight, 640));
    if (this.view && this.view.width === width && this.view.height === height) return;
    const stays = this.view && !this.seesAll();
    this.ratio = Math.min(window.devicePixelRatio || 1, MOST_RATIO);
    this.view = stays
      ? bounded({ ...this.view, width, height }, this.about.field)
      : fittedView(this.about.field, width, height);
    for (const canvas of [this.picture, this.marks]) {
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(height * this.ratio);
      canvas.style.height = `${height}px`;
    }
    this.drawn = null;
    this.bright = null;
    this.draw();
  }

  seesAll() {
    return this.view.scale >= fittedView(this.about.field, this.view.width, this.view.height).scale;
  }

  move(view) {
    if (view.scale !== this.view.scale) this.bright = null;
    this.view = view;
    this.draw();
  }

  // About a place; without one about the molecule that is chosen, if it is in view, or the middle.
  zoom(factor, px = null, py = null) {
    if (px === null) [px, py] = this.heldPlace();
    this.move(zoomed(this.view, this.about.field, factor, px, py));
  }

  heldPlace() {
    const { rows, view, chosen } = this;
    if (chosen !== null) {
      const [x, y] = [xOnScreen(view, rows.x[chosen]), yOnScreen(view, rows.y[chosen])];
      if (x >= 0 && y >= 0 && x <= view.width && y <= view.height) return [x, y];
    }
    return [view.width / 2, view.height / 2];
  }

  // --- Drawing ---

  draw() {
    if (this.waiting || !this.view) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.cost > SLOW_MS && this.drawn) this.drawStretched();
      else this.drawAnew();
      this.drawMarks();
      this.showPlace();
    });
  }

  drawAnew() {
    clearTimeout(this.timer);
    const begin = performance.now();
    const density = densityOf(this.rows, this.kept, this.view, this.ratio);
    if (this.bright === null) this.bright = brightDensity(density);
    const high = (this.bright || 1) / this.brightness;
    this.picture.getContext("2d").putImageData(colouredPicture(density, high, this.colours), 0, 0);
    this.copy = null;
    this.drawn = this.view;
    this.cost = performance.now() - begin;
    const end = plain(high, 3);
    at("density-end").textContent = this.bright === 0
      ? "no localization in view"
      : `${end} localization${end === "1" ? "" : "s"} per µm² or more`;
  }

  drawStretched() {
    this.copy ??= copyOf(this.picture);
    const { view, drawn, ratio } = this;
    const share = drawn.scale / view.scale;
    const context = this.picture.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.picture.width, this.picture.height);
    const left = xOnScreen(view, drawn.x - (drawn.width / 2) * drawn.scale) * ratio;
    const top = yOnScreen(view, drawn.y - (drawn.height / 2) * drawn.scale) * ratio;
    context.drawImage(this.copy, left, top, this.copy.width * share, this.copy.height * share);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.drawAnew(), REST_MS);
  }

  drawMarks() {
    const context = this.marks.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.view.width, this.view.height);
    const few = rowsInView(this.rows, this.kept, this.view, MOST_MARKS);
    at("marks-key").hidden = few === null;
    for (const i of few || []) drawMark(context, this.rows, this.view, i);
    if (this.chosen !== null) drawChosen(context, this.rows, this.view, this.chosen);
    const bar = scaleBar(this.view);
    at("scale").style.width = `${bar.px}px`;
    at("scale").firstChild.textContent = bar.label;
  }

  showColours() {
    const context = document.querySelector("#density .bar").getContext("2d");
    const ramp = { width: 256, height: 1, values: Float32Array.from({ length: 256 }, (_, k) => k) };
    context.putImageData(colouredPicture(ramp, 255, this.colours), 0, 0);
  }

  showPlace(px = this.view.width / 2, py = this.view.height / 2) {
    const { x, y } = placeOnScreen(this.view, px, py);
    const decimals = this.view.scale < 2 ? 1 : 0;
    const what = px === this.view.width / 2 && py === this.view.height / 2 ? "middle" : "pointer";
    at("place").textContent = `${what}: x ${fixed(x, decimals)} nm, y ${fixed(y, decimals)} nm`;
  }

  // --- Filters ---

  filter(limits) {
    this.limits = limits;
    this.kept = keptRows(this.rows, limits);
    this.bright = null;
    this.cost = 0; // the picture follows at once
    if (this.chosen !== null && !isKept(this.kept, this.chosen)) this.choose(null);
    this.showCounts();
    this.draw();
  }

  showCounts() {
    const { rows, kept } = this;
    const found = summaryOf(rows, kept);
    at("counts").textContent = countsInWords(found, rows.count);
    at("doubts").replaceChildren(...found.doubts.filter(({ count }) => count).map(doubtItem));
    if (found.trusted === found.kept) at("doubts").replaceChildren(textElement("li", "none"));
    const query = queryOf(rows, this.limits);
    at("query").textContent = query && `table.query("${query}")`;
    at("command").textContent = query && commandOf(query);
    at("query-part").hidden = !query;
    at("save-csv").disabled = found.kept === 0;
  }

  // --- One molecule ---

  choose(i, aloud = false) {
    this.chosen = i;
    at("readout-none").hidden = i !== null;
    const entries = i === null ? [] : readoutOf(rowAsNumbers(this.rows, i));
    at("readout").replaceChildren(...entries.flatMap(([name, value]) => [
      textElement("dt", name), textElement("dd", value),
    ]));
    at("spoken").textContent = aloud ? entries.map((entry) => entry.join(": ")).join(". ") : "";
    this.drawMarks();
  }

  // Choose what is near; a pointer that only passes an empty place leaves the last one to be read.
  chooseNear(px, py, pointerType, passing = false) {
    const reach = NEAR_PX[pointerType] || NEAR_PX.mouse;
    const near = nearestRow(this.rows, this.kept, this.view, px, py, reach);
    if (near === this.chosen || (passing && near === null)) return;
    this.choose(near);
  }

  step(direction) {
    const next = steppedRow(this.rows, this.kept, this.view, this.chosen, direction);
    if (next !== null) this.choose(next, true);
  }
}

// --- Rows on the screen ---

// Rows in the view, or null where there are more than `most`.
function rowsInView(rows, kept, view, most) {
  const halfWidth = (view.width / 2) * view.scale;
  const halfHeight = (view.height / 2) * view.scale;
  const found = [];
  for (let k = 0; k < kept.length; k++) {
    const i = kept[k];
    if (Math.abs(rows.x[i] - view.x) > halfWidth) continue;
    if (Math.abs(rows.y[i] - view.y) > halfHeight) continue;
    found.push(i);
    if (found.length > most) return null;
  }
  return found;
}

function nearestRow(rows, kept, view, px, py, reachPx) {
  const { x, y } = placeOnScreen(view, px, py);
  let best = null;
  let least = (reachPx * view.scale) ** 2;
  for (let k = 0; k < kept.length; k++) {
    const i = kept[k];
    const distance = (rows.x[i] - x) ** 2 + (rows.y[i] - y) ** 2;
    if (distance < least) [best, least] = [i, distance];
  }
  return best;
}

// The next row outwards from the middle of the view (direction 1), or inwards (-1); null if there
// is none in view. Rows equally far come in the table's order.
function steppedRow(rows, kept, view, chosen, direction) {
  const far = (i) => (rows.x[i] - view.x) ** 2 + (rows.y[i] - view.y) ** 2;
  const inView = (i) =>
    Math.abs(rows.x[i] - view.x) * 2 <= view.width * view.scale &&
    Math.abs(rows.y[i] - view.y) * 2 <= view.height * view.scale;
  const after = (i, j) => direction * (far(i) - far(j) || i - j) > 0;
  const from = chosen !== null && inView(chosen) ? chosen : null;
  if (from === null && direction < 0) return null;
  let best = null;
  for (let k = 0; k < kept.length; k++) {
    const i = kept[k];
    if (!inView(i) || (from !== null && !after(i, from))) continue;
    if (best === null || after(best, i)) best = i;
  }
  return best;
}

function isKept(kept, i) {
  let low = 0;
  let high = kept.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (kept[middle] < i) low = middle + 1;
    else high = middle;
  }
  return kept[low] === i;
}

function drawMark(context, rows, view, i) {
  const x = xOnScreen(view, rows.x[i]);
  const y = yOnScreen(view, rows.y[i]);
  const r = MARK_PX;
  context.beginPath();
  if (rows.codes.doubt[i] === 0) {
    lines(context, [x - r, y, x + r, y], [x, y - r, x, y + r]);
  } else {
    lines(context, [x - r, y - r, x + r, y + r], [x - r, y + r, x + r, y - r]);
  }
  outlined(context);
}

// A box over the 95 % intervals, at least so large that it is seen.
function drawChosen(context, rows, view, i) {
  const span = (axis, onScreen) => {
    const { low, high } = intervalOf(rows, axis, i);
    return spanOnScreen(onScreen(view, low), onScreen(view, high), onScreen(view, rows[axis][i]));
  };
  const [left, right] = span("x", xOnScreen);
  const [top, bottom] = span("y", yOnScreen);
  context.setLineDash(rows.codes.doubt[i] === 0 ? [] : [5, 4]);
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  outlined(context);
  context.setLineDash([]);
}

function spanOnScreen(low, high, middle) {
  const least = 8;
  if (Number.isFinite(low + high) && high - low >= 2 * least) return [low, high];
  return [middle - least, middle + least];
}

function lines(context, ...ends) {
  for (const [x0, y0, x1, y1] of ends) {
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  }
}

function outlined(context) {
  context.lineWidth = 4;
  context.strokeStyle = "rgba(0, 0, 0, 0.8)";
  context.stroke();
  context.lineWidth = 1.6;
  context.strokeStyle = "#fff";
  context.stroke();
}

function copyOf(canvas) {
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  copy.getContext("2d").drawImage(canvas, 0, 0);
  return copy;
}

// --- Words ---

function textElement(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function doubtItem({ reason, count }) {
  return textElement("li", `${plain(count, 15)}: ${reason}`);
}

function percent(share) {
  return `${fixed(100 * share, 1)} %`;
}

function countsInWords(found, all) {
  const shown = `${plain(found.kept, 15)} of ${plain(all, 15)} localizations shown`;
  if (found.kept === 0) return `${shown}: nothing passes these filters.`;
  return (
    `${shown} (${percent(found.kept / all)}); ${plain(found.trusted, 15)} of them trusted; ` +
    `${plain(Math.round(found.expected), 15)} expected to exist; ` +
    `median precision ${fixed(found.medianSigma, 1)} nm.`
  );
}

function readoutOf(row) {
  const interval = ({ low, high }) => `95 % within ${fixed(low, 1)} to ${fixed(high, 1)} nm`;
  return [
    ["x", `${fixed(row.x, 1)} ± ${fixed(row.sigma.x, 1)} nm, ${interval(row.xInterval)}`],
    ["y", `${fixed(row.y, 1)} ± ${fixed(row.sigma.y, 1)} nm, ${interval(row.yInterval)}`],
    ["photons", `${fixed(row.photons, 0)} ± ${fixed(row.photonsError, 0)}`],
    ["background", `${fixed(row.background, 1)} photons per pixel`],
    ["exists with probability", percent(row.probability)],
    ["frame", `${row.frame} (the first is 0)`],
    ["trusted", row.reason ? `no: ${row.reason}` : "yes"],
    ["row of the table", plain(row.row, 15)],
  ];
}
