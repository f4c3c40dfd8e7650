// Start: the sliders of images at once, the molecules as soon as they are unpacked.

async function showMolecules() {
  const state = at("molecules-state");
  const about = JSON.parse(at("molecules-about").textContent);
  if (about.rows === 0) {
    state.textContent = "No molecules were found.";
    return;
  }
  if (!("DecompressionStream" in window)) {
    state.textContent =
      "This browser is too old to unpack the molecules (Chrome 80, Firefox 113, Safari 16.4 or " +
      "newer can). The pictures further down need nothing.";
    return;
  }
  state.textContent = "Unpacking the molecules ...";
  performance.mark("molecules-read");
  const rows = await unpackRows(about, at("molecules-data").textContent);
  performance.mark("molecules-unpacked");
  at("molecules").hidden = false;
  state.hidden = true;
  window.viewer = new MoleculeViewer(rows, about);
  window.viewer.start();
  requestAnimationFrame(() => performance.mark("molecules-shown"));
}

followSplits();
showMolecules().catch((error) => {
  at("molecules-state").hidden = false;
  at("molecules-state").textContent = `The molecules cannot be shown here (${error.message}).`;
  throw error;
});
