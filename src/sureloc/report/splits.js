// Splits: two pictures laid over each other, and the edge between them.

function followSplits() {
  for (const stage of document.querySelectorAll(".stage.slider")) {
    const compare = stage.querySelector(".compare");
    const range = stage.querySelector("input[type=range]");
    const move = (share) => {
      const split = Math.min(100, Math.max(0, share));
      compare.style.setProperty("--split", split + "%");
      range.value = split;
    };
    range.addEventListener("input", () => move(Number(range.value)));
    const follow = (event) => {
      const box = compare.getBoundingClientRect();
      move((100 * (event.clientX - box.left)) / box.width);
    };
    compare.addEventListener("pointerdown", (event) => {
      compare.setPointerCapture(event.pointerId);
      follow(event);
    });
    compare.addEventListener("pointermove", (event) => {
      if (event.buttons) follow(event);
    });
    for (const choice of stage.querySelectorAll("input[type=radio]")) {
      choice.addEventListener("change", () => {
        for (const image of stage.querySelectorAll("img.second")) {
          image.classList.toggle("shown", image.dataset.name === choice.value);
        }
        for (const key of stage.querySelectorAll(".key[data-name]")) {
          key.hidden = key.dataset.name !== choice.value;
        }
      });
    }
  }
}
