// The attention viewer: choose a code, see which words and which earlier codes it looks at. `data` comes from attention.py.
function attention(root, data) {
  const cells = Array.from(root.querySelectorAll(".cells button"));
  const words = Array.from(root.querySelectorAll(".weights li"));
  const layer = root.querySelector("select");
  const status = root.querySelector(".status");
  let cell = data.start;

  function place(index) {
    return "row " + (Math.floor(index / data.columns) + 1) + ", column " + ((index % data.columns) + 1);
  }

  function largest(numbers) {
    return numbers.indexOf(Math.max(...numbers));
  }

  function percent(thousandths) {
    return Math.round(thousandths / 10) + " %";
  }

  function show() {
    const view = data.views[Number(layer.value)];
    const cross = view.cross[cell];
    const own = view.own[cell]; // entry 0 is the start token, entry j the code before position j
    const most = Math.max(...own.slice(1), 1);
    cells.forEach((button, index) => {
      const seen = index < cell;
      button.setAttribute("aria-checked", String(index === cell));
      button.tabIndex = index === cell ? 0 : -1;
      button.classList.toggle("unseen", !seen && index !== cell);
      const strength = seen ? (0.85 * own[index + 1]) / most : 0;
      button.style.backgroundColor = strength ? "rgba(213, 94, 0, " + strength.toFixed(3) + ")" : "";
    });
    words.forEach((item, index) => {
      item.querySelector(".bar").style.width = cross[index] / 10 + "%";
      item.querySelector("output").textContent = percent(cross[index]);
    });
    const word = largest(cross);
    const before = largest(own);
    status.textContent =
      "The code at " + place(cell) + " looks most at “" + data.words[word].trim() + "” (" + percent(cross[word]) +
      ") in the caption; of what is written, most at " +
      (before === 0 ? "the start token" : "the code at " + place(before - 1)) +
      " (" + percent(own[before]) + "; the start token has " + percent(own[0]) + ").";
  }

  function choose(index) {
    cell = index;
    show();
  }

  root.querySelector(".cells").addEventListener("keydown", (event) => {
    const from = cells.indexOf(document.activeElement);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -data.columns, ArrowDown: data.columns }[event.key];
    const to = from + step;
    if (from < 0 || !step) return;
    event.preventDefault();
    if (to < 0 || to >= cells.length) return;
    choose(to);
    cells[to].focus();
  });
  cells.forEach((button, index) => button.addEventListener("click", () => choose(index)));
  layer.addEventListener("input", show);
  root.querySelector(".controls").hidden = false;
  show();
}
