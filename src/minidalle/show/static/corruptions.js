// The corruption picker: choose a text, a corruption and a seed. `data` comes from corruptions.py.
function corruptions(root, data) {
  const find = (selector) => root.querySelector(selector);
  const controls = Array.from(root.querySelectorAll("[data-axis]"));
  const status = find(".status");

  function items(pieces) {
    return pieces.map((piece) => {
      const item = document.createElement("li");
      item.textContent = piece;
      item.classList.toggle("mask", piece === data.mask);
      return item;
    });
  }

  function counted(number, word) {
    return number + " " + word + (number === 1 ? "" : "s");
  }

  function show() {
    const indices = controls.map((control) => Number(control.value));
    const whole = data.pieces[indices[0]];
    const state = data.states[indices.join(",")];
    const seed = data.seeds[indices[2]];
    controls[2].parentNode.querySelector("output").textContent = seed;
    controls[2].setAttribute("aria-valuetext", seed);
    find(".whole").replaceChildren(...items(whole));
    find(".damaged").replaceChildren(...items(state.pieces));
    const masks = state.pieces.filter((piece) => piece === data.mask).length;
    let words = counted(whole.length, "token") + " became " + state.pieces.length;
    if (masks) words += ", " + counted(masks, "mask") + " among them";
    words += ".";
    if (state.repaired) {
      const same = state.repaired === data.texts[indices[0]];
      words += " The model writes “" + state.repaired + "”" + (same ? ": repaired." : ".");
    }
    status.textContent = words;
  }

  controls.forEach((control) => control.addEventListener("input", show));
  find(".controls").hidden = false;
  show();
}
