// The code picker: choose a cell, then the code that takes its place. `data` comes from widgets.py.
function picker(root, data) {
  const find = (selector) => root.querySelector(selector);
  const cells = Array.from(root.querySelectorAll(".cells button"));
  const choices = find(".choices");
  const result = find(".result img");
  const status = find(".status");
  let cell = data.start;
  let choice = -1; // −1 keeps the code that stands there

  function mark(buttons, chosen) {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-checked", String(index === chosen));
      button.tabIndex = index === chosen ? 0 : -1;
    });
  }

  function place() {
    const row = Math.floor(cell / data.columns);
    const column = cell % data.columns;
    root.querySelectorAll(".frame").forEach((frame) => {
      frame.style.left = (100 * column) / data.columns + "%";
      frame.style.top = (100 * row) / data.rows + "%";
      frame.style.width = 100 / data.columns + "%";
      frame.style.height = 100 / data.rows + "%";
    });
    return "row " + (row + 1) + ", column " + (column + 1);
  }

  function show() {
    const code = data.codes[cell];
    const where = place();
    mark(cells, cell);
    const buttons = Array.from(choices.children);
    mark(buttons, choice + 1);
    const image = buttons[0].querySelector("img");
    image.src = data.patches[code];
    buttons[0].lastChild.textContent = "keep " + code;
    if (choice < 0) {
      result.src = data.decoded;
      result.alt = "The picture that the decoder draws from the codes as they are";
      status.textContent = "Code " + code + " stands at " + where + ".";
    } else {
      const other = data.alternatives[choice];
      result.src = data.variants[cell][choice];
      result.alt = "The picture with code " + other + " instead of " + code + " at " + where;
      status.textContent =
        other === code
          ? "Code " + code + " already stands at " + where + ": nothing changes."
          : "Code " + code + " at " + where + " replaced by " + other + ": " + data.notes[cell][choice] + ".";
    }
  }

  function arrows(buttons, width, choose) {
    return (event) => {
      const from = buttons().indexOf(document.activeElement);
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
      if (from < 0 || !step) return;
      event.preventDefault();
      const to = from + step;
      const wraps = Math.abs(step) === 1 && width > 1 && Math.floor(to / width) !== Math.floor(from / width);
      if (to < 0 || to >= buttons().length || wraps) return;
      choose(to);
      buttons()[to].focus();
    };
  }

  function chooseCell(index) {
    cell = index;
    show();
  }
  function chooseCode(index) {
    choice = index - 1;
    show();
  }

  cells.forEach((button, index) => button.addEventListener("click", () => chooseCell(index)));
  Array.from(choices.children).forEach((button, index) => button.addEventListener("click", () => chooseCode(index)));
  find(".cells").addEventListener("keydown", arrows(() => cells, data.columns, chooseCell));
  choices.addEventListener("keydown", arrows(() => Array.from(choices.children), 1, chooseCode));
  find("fieldset").hidden = false;
  show();
}
