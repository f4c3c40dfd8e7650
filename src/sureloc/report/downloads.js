// Downloads: the kept rows as ThunderSTORM's CSV, and the picture with its scale bar as PNG.

// The columns of localizations.csv, in its order.
const CSV_HEADER = [
  "id", "frame", "x [nm]", "y [nm]", "sigma [nm]", "intensity [photon]", "offset [photon]",
  "bkgstd [photon]", "uncertainty_xy [nm]", "uncertainty_x [nm]", "uncertainty_y [nm]",
  "sigma_photons", "p_exists", "trusted",
];
const ROWS_A_PIECE = 20000;

// ThunderSTORM counts frames and ids from 1, has its origin at the corner of the first pixel, and
// reads neither exponents nor "nan".
function csvLine(rows, i, about) {
  const background = valueOf(rows, "background", i);
  const shot = Math.max(background, 0) * about.variance_per_photon;
  const photons = valueOf(rows, "photons", i);
  const sigma = sigmasOf(rows, i);
  const numbers = [
    rows.x[i] + about.pixel_nm / 2, rows.y[i] + about.pixel_nm / 2, about.psf_sigma_nm, photons,
    background, Math.sqrt(shot + about.read_variance_photons2), valueOf(rows, "sigma", i),
    sigma.x, sigma.y, Math.abs(photons) * valueOf(rows, "error", i), valueOf(rows, "p_exists", i),
  ];
  const text = numbers.map((value) => (Number.isFinite(value) ? value.toFixed(3) : "NaN"));
  const trusted = rows.codes.doubt[i] === 0 ? 1 : 0;
  return `${rowNumber(rows, i)},${frameOf(rows, i) + 1},${text.join(",")},${trusted}\n`;
}

function csvOf(rows, kept, about) {
  const pieces = [`${CSV_HEADER.map((name) => `"${name}"`).join(",")}\n`];
  for (let start = 0; start < kept.length; start += ROWS_A_PIECE) {
    const lines = [];
    for (const i of kept.subarray(start, start + ROWS_A_PIECE)) lines.push(csvLine(rows, i, about));
    pieces.push(lines.join(""));
  }
  return new Blob(pieces, { type: "text/csv" });
}

function pictureOf(canvas, view, ratio) {
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  const context = copy.getContext("2d");
  context.drawImage(canvas, 0, 0);
  context.scale(ratio, ratio);
  drawScaleBar(context, view);
  return new Promise((resolve) => { copy.toBlob(resolve, "image/png"); });
}

function drawScaleBar(context, view) {
  const bar = scaleBar(view);
  const left = view.width - 16 - bar.px;
  const top = view.height - 20;
  context.font = "14px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillStyle = "rgba(0, 0, 0, 0.65)"; // the plate, as on the page
  context.fillRect(left - 5, top - 26, bar.px + 10, 35);
  context.fillStyle = "#fff";
  context.fillRect(left, top, bar.px, 4);
  context.fillText(bar.label, left + bar.px / 2, top - 6);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
