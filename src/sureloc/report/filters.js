// Filters: which rows are kept, how many there are, and the same in words for Python.
//
// Limits are numbers of edges of bins, so that a row passes exactly if its unrounded value does:
// bin k holds edges[k - 1] <= value < edges[k]. null is no limit.

const NO_LIMITS = Object.freeze({
  sigmaBelow: null, // edge
  probabilityFrom: null, // edge
  photonsFrom: null, // edge
  photonsBelow: null, // edge
  frameFrom: null, // frame
  frameTo: null, // frame, which is kept
  trustedOnly: false,
});

// One byte for every bin of a column: whether its values lie within [edge from, edge below).
function passingBins(edges, from, below) {
  const passes = new Uint8Array(edges.length + 1);
  for (let bin = 0; bin <= edges.length; bin++) {
    const highEnough = from === null || bin > from;
    const lowEnough = below === null || (bin > 0 && bin <= below);
    passes[bin] = highEnough && lowEnough ? 1 : 0;
  }
  return passes;
}

// Numbers of the rows that pass, ascending.
function keptRows(rows, limits) {
  const { frame, sigma, photons, p_exists: probability, doubt } = rows.codes;
  const { origin } = rows.reading.frame;
  const edges = (name) => rows.reading[name].edges;
  const sigmaPasses = passingBins(edges("sigma"), null, limits.sigmaBelow);
  const photonsPass = passingBins(edges("photons"), limits.photonsFrom, limits.photonsBelow);
  const probabilityPasses = passingBins(edges("p_exists"), limits.probabilityFrom, null);
  const first = limits.frameFrom === null ? 0 : limits.frameFrom - origin;
  const last = limits.frameTo === null ? Infinity : limits.frameTo - origin;
  const doubtPasses = limits.trustedOnly ? 0 : 255;
  const kept = new Uint32Array(rows.count);
  let number = 0;
  for (let i = 0; i < rows.count; i++) {
    if (
      sigmaPasses[sigma[i]] && photonsPass[photons[i]] && probabilityPasses[probability[i]] &&
      frame[i] >= first && frame[i] <= last && doubt[i] <= doubtPasses
    ) kept[number++] = i;
  }
  return kept.subarray(0, number);
}

// What the kept rows amount to.
function summaryOf(rows, kept) {
  const doubts = new Array(rows.about.reasons.length + 1).fill(0);
  const probabilities = rows.reading.p_exists.edges;
  const middles = Float64Array.from({ length: probabilities.length + 1 }, (_, bin) =>
    bin === 0 ? 0 : binMiddle(probabilities, bin));
  const sigmas = new Uint32Array(rows.reading.sigma.edges.length + 1);
  let expected = 0;
  for (let k = 0; k < kept.length; k++) {
    const i = kept[k];
    doubts[rows.codes.doubt[i]]++;
    expected += middles[rows.codes.p_exists[i]];
    sigmas[rows.codes.sigma[i]]++;
  }
  return {
    kept: kept.length,
    trusted: doubts[0],
    doubts: rows.about.reasons.map((reason, k) => ({ reason, count: doubts[k + 1] })),
    expected,
    // Of all rows it is known exactly, as the report says it above.
    medianSigma: kept.length === rows.count
      ? rows.about.median_sigma_nm
      : medianOfBins(rows.reading.sigma.edges, sigmas),
  };
}

function medianOfBins(edges, counts) {
  let left = counts.subarray(1).reduce((sum, count) => sum + count, 0) / 2;
  for (let bin = 1; bin < counts.length; bin++) {
    if (counts[bin] > 0 && left <= counts[bin]) {
      const low = edges[bin - 1];
      return low + (left / counts[bin]) * ((edges[bin] ?? low) - low);
    }
    left -= counts[bin];
  }
  return NaN;
}

// The same rows out of localizations.parquet, for pandas: table.query("...").
function queryOf(rows, limits) {
  const edge = (name, k) => rows.reading[name].edges[k];
  const parts = [];
  if (limits.sigmaBelow !== null) {
    const below = edge("sigma", limits.sigmaBelow);
    parts.push(`((sigma_x_nm**2 + sigma_y_nm**2) / 2)**0.5 < ${below}`);
  }
  if (limits.probabilityFrom !== null) {
    parts.push(`p_exists >= ${edge("p_exists", limits.probabilityFrom)}`);
  }
  if (limits.photonsFrom !== null) {
    parts.push(`photons >= ${edge("photons", limits.photonsFrom)}`);
  }
  if (limits.photonsBelow !== null) {
    parts.push(`photons < ${edge("photons", limits.photonsBelow)}`);
  }
  if (limits.frameFrom !== null) parts.push(`frame >= ${limits.frameFrom}`);
  if (limits.frameTo !== null) parts.push(`frame <= ${limits.frameTo}`);
  if (limits.trustedOnly) parts.push("trusted");
  return parts.join(" and ");
}

// The same as a command.
function commandOf(query) {
  return `sureloc filter localizations.parquet "${query}" --out shown.parquet`;
}
