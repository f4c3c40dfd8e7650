// Rows: from packed bytes to typed arrays, and from these to numbers with units.
// Written by sureloc.report.packing, which says what the codes mean.

async function unpackRows(about, base64) {
  const packed = new Blob([bytesOf(base64)]).stream();
  const stream = packed.pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const rows = { count: about.rows, about, codes: {}, reading: {} };
  let start = 0;
  for (const column of about.columns) {
    rows.codes[column.name] = unpackColumn(bytes, start, rows.count, column);
    rows.reading[column.name] = column;
    start += column.bytes * rows.count;
  }
  rows.x = positions(rows, "x");
  rows.y = positions(rows, "y");
  return rows;
}

function bytesOf(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

function unpackColumn(bytes, start, count, column) {
  const Kind = { 1: Uint8Array, 2: Uint16Array }[column.bytes] || Uint32Array;
  const codes = new Kind(count);
  for (let plane = 0; plane < column.bytes; plane++) {
    const from = start + plane * count;
    const unit = 2 ** (8 * plane);
    for (let i = 0; i < count; i++) codes[i] += bytes[from + i] * unit;
  }
  // The array's own type wraps sums round, as the differences did (three bytes by hand).
  const mask = column.bytes === 3 ? 0xffffff : 0xffffffff;
  if (column.differences) {
    for (let i = 1; i < count; i++) codes[i] = (codes[i] + codes[i - 1]) & mask;
  }
  return codes;
}

function positions(rows, axis) {
  const { origin, step } = rows.reading[axis];
  const codes = rows.codes[axis];
  const nm = new Float64Array(codes.length);
  for (let i = 0; i < nm.length; i++) nm[i] = origin + codes[i] * step;
  return nm;
}

// The middle of the bin that a value lies in; NaN where there is no value.
function binMiddle(edges, code) {
  if (code === 0) return NaN;
  return code < edges.length ? (edges[code - 1] + edges[code]) / 2 : edges[edges.length - 1];
}

function valueOf(rows, name, i) {
  return binMiddle(rows.reading[name].edges, rows.codes[name][i]);
}

function frameOf(rows, i) {
  return rows.reading.frame.origin + rows.codes.frame[i];
}

// Sigma along x and y, nm.
function sigmasOf(rows, i) {
  const sigma = valueOf(rows, "sigma", i);
  const share = rows.codes.shape[i] / rows.about.shape_levels;
  const least = 0.5 / rows.about.shape_levels;
  return {
    x: sigma * Math.sqrt(2 * Math.max(share, least)),
    y: sigma * Math.sqrt(2 * Math.max(1 - share, least)),
  };
}

// Ends of the 95 % interval along an axis, nm; NaN where there is none.
function intervalOf(rows, axis, i) {
  const { interval_step: step, interval_zero: zero } = rows.about;
  const sigma = sigmasOf(rows, i)[axis];
  const beyond = (end) => {
    const code = rows.codes[`${axis}_${end}`][i];
    return code === 0 ? NaN : (code - zero) * step * sigma;
  };
  return { low: rows[axis][i] - beyond("lo"), high: rows[axis][i] + beyond("hi") };
}

function rowAsNumbers(rows, i) {
  const doubt = rows.codes.doubt[i];
  const photons = valueOf(rows, "photons", i);
  return {
    row: rowNumber(rows, i),
    frame: frameOf(rows, i),
    x: rows.x[i],
    y: rows.y[i],
    sigma: sigmasOf(rows, i),
    xInterval: intervalOf(rows, "x", i),
    yInterval: intervalOf(rows, "y", i),
    photons,
    photonsError: photons * valueOf(rows, "error", i),
    background: valueOf(rows, "background", i),
    probability: valueOf(rows, "p_exists", i),
    reason: doubt === 0 ? "" : rows.about.reasons[doubt - 1],
  };
}

// Number of a row in the whole table, from 1; the page may hold every second or third only.
function rowNumber(rows, i) {
  return i * rows.about.stride + 1;
}
