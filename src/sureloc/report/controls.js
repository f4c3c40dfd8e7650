// Controls: pointers, keys, buttons and sliders, and what each does to the viewer.

function listenToPointers(viewer) {
  const { picture } = viewer;
  const place = (event) => {
    const box = picture.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  picture.addEventListener("pointerdown", (event) => {
    picture.setPointerCapture(event.pointerId);
    viewer.pointers.set(event.pointerId, place(event));
    viewer.dragged = viewer.pointers.size > 1;
  });
  picture.addEventListener("pointermove", (event) => {
    const now = place(event);
    if (viewer.pointers.has(event.pointerId)) follow(viewer, event.pointerId, now);
    else hover(viewer, now, event.pointerType);
  });
  picture.addEventListener("pointerup", (event) => {
    viewer.pointers.delete(event.pointerId);
    const { x, y } = place(event);
    if (!viewer.dragged) viewer.chooseNear(x, y, event.pointerType);
  });
  picture.addEventListener("pointercancel", (event) => viewer.pointers.delete(event.pointerId));
  picture.addEventListener("wheel", (event) => {
    // Where nothing is left to zoom out of, the wheel scrolls the page.
    if (event.deltaY > 0 && viewer.seesAll()) return;
    event.preventDefault();
    // Lines or pixels; a touch pad's pinch comes as small steps with Ctrl.
    const unit = (event.deltaMode === 1 ? 16 : 1) * (event.ctrlKey ? 6 : 1);
    const delta = Math.max(-300, Math.min(300, event.deltaY * unit));
    const { x, y } = place(event);
    viewer.zoom(Math.exp(-delta / 300), x, y);
  }, { passive: false });
}

// One pointer moves the picture; two zoom it about what is between them.
function follow(viewer, id, now) {
  const before = viewer.pointers.get(id);
  const other = [...viewer.pointers].find(([key]) => key !== id)?.[1];
  const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
  if (!viewer.dragged && !other && distance(before, now) < 4) return;
  viewer.dragged = true;
  viewer.pointers.set(id, now);
  const { field } = viewer.about;
  const half = other ? 0.5 : 1;
  let view = panned(viewer.view, field, half * (now.x - before.x), half * (now.y - before.y));
  if (other) {
    const factor = Math.max(distance(now, other), 1) / Math.max(distance(before, other), 1);
    view = zoomed(view, field, factor, (now.x + other.x) / 2, (now.y + other.y) / 2);
  }
  viewer.move(view);
}

function hover(viewer, now, pointerType) {
  viewer.hovered = now;
  if (viewer.hovering) return;
  viewer.hovering = true;
  requestAnimationFrame(() => {
    viewer.hovering = false;
    viewer.chooseNear(viewer.hovered.x, viewer.hovered.y, pointerType, true);
    viewer.showPlace(viewer.hovered.x, viewer.hovered.y);
  });
}

function listenToKeys(viewer) {
  const { field } = viewer.about;
  const pan = (dx, dy) => viewer.move(panned(viewer.view, field, dx, dy));
  const deeds = {
    ArrowLeft: () => pan(KEY_STEP_PX, 0),
    ArrowRight: () => pan(-KEY_STEP_PX, 0),
    ArrowUp: () => pan(0, KEY_STEP_PX),
    ArrowDown: () => pan(0, -KEY_STEP_PX),
    "+": () => viewer.zoom(KEY_ZOOM),
    "=": () => viewer.zoom(KEY_ZOOM),
    "-": () => viewer.zoom(1 / KEY_ZOOM),
    0: () => showWhole(viewer),
    n: () => viewer.step(1),
    p: () => viewer.step(-1),
    Escape: () => viewer.choose(null),
  };
  viewer.picture.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const deed = deeds[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!deed) return;
    event.preventDefault();
    deed();
  });
}

function showWhole(viewer) {
  viewer.move(fittedView(viewer.about.field, viewer.view.width, viewer.view.height));
}

function listenToButtons(viewer) {
  at("zoom-in").addEventListener("click", () => viewer.zoom(2));
  at("zoom-out").addEventListener("click", () => viewer.zoom(0.5));
  at("whole").addEventListener("click", () => showWhole(viewer));
  at("next").addEventListener("click", () => viewer.step(1));
  at("previous").addEventListener("click", () => viewer.step(-1));
  at("brightness").addEventListener("input", (event) => {
    viewer.brightness = 10 ** (Number(event.target.value) / 20);
    viewer.draw();
  });
  at("save-csv").addEventListener("click", () => {
    save(csvOf(viewer.rows, viewer.kept, viewer.about), `${viewer.about.file}_shown.csv`);
  });
  at("save-png").addEventListener("click", async () => {
    viewer.drawAnew();
    const { picture, view, ratio } = viewer;
    save(await pictureOf(picture, view, ratio), `${viewer.about.file}_shown.png`);
  });
}

// Sliders stand on edges of bins, by number; the outermost place is no limit.
function slidersOf(rows) {
  const edges = (name) => rows.reading[name].edges;
  const filled = (name) => {
    let low = Infinity;
    let high = 0;
    for (const code of rows.codes[name]) {
      if (code && code < low) low = code;
      if (code > high) high = code;
    }
    return { low, high };
  };
  // "At least" stands on lower edges, from the lowest bin's on; "below" on upper ones.
  const binned = (name, limit, unit, end) => {
    const { low, high } = filled(name);
    const shift = end === "low" ? 1 : 0;
    return { limit, low: low - shift, high: high - shift, end, show: (k) => unit(edges(name)[k]) };
  };
  const first = rows.reading.frame.origin;
  const last = first + rows.codes.frame.reduce((high, code) => Math.max(high, code), 0);
  const frames = (limit, end) => ({ limit, low: first, high: last, end, show: (k) => `${k}` });
  const photons = (value) => `${plain(value, 4)}`;
  return {
    "sigma-below": binned("sigma", "sigmaBelow", (value) => `${value} nm`, "high"),
    "probability-from": binned("p_exists", "probabilityFrom", (value) => `${value}`, "low"),
    "photons-from": binned("photons", "photonsFrom", photons, "low"),
    "photons-below": binned("photons", "photonsBelow", photons, "high"),
    "frame-from": frames("frameFrom", "low"),
    "frame-to": frames("frameTo", "high"),
  };
}

function listenToFilters(viewer) {
  const sliders = slidersOf(viewer.rows);
  for (const [id, { low, high }] of Object.entries(sliders)) {
    at(id).min = low;
    at(id).max = high;
  }
  const apply = () => viewer.filter(limitsOf(sliders));
  const restart = () => {
    for (const [id, { low, high, end }] of Object.entries(sliders)) {
      at(id).value = end === "low" ? low : high;
    }
    at("trusted-only").checked = false;
    limitsOf(sliders);
  };
  restart();
  at("filters").addEventListener("input", apply);
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    restart();
    apply();
  });
}

// Read the limits off the sliders, and write beside each what it stands for.
function limitsOf(sliders) {
  const limits = { ...NO_LIMITS, trustedOnly: at("trusted-only").checked };
  for (const [id, { limit, low, high, end, show }] of Object.entries(sliders)) {
    const value = Number(at(id).value);
    const none = value === (end === "low" ? low : high);
    limits[limit] = none ? null : value;
    const text = none && !id.startsWith("frame") ? "any" : show(value);
    at(`${id}-is`).textContent = text;
    at(id).setAttribute("aria-valuetext", text);
  }
  return limits;
}
