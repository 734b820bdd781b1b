// The sampling controls: turn a knob, and the chances of one step and the pictures change. `data` comes from controls.py.
function controls(root, data) {
  const find = (selector) => root.querySelector(selector);
  const sliders = Array.from(root.querySelectorAll("input[type=range]"));
  const status = find(".status");

  function add(parent, name, text) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function bar([code, chance]) {
    const item = document.createElement("li");
    const image = add(item, "img");
    image.src = data.patches[code];
    image.alt = "patch of code " + code;
    add(item, "span", String(code));
    const track = add(item, "span");
    track.className = "track";
    add(track, "span").style.width = 100 * chance + "%";
    add(item, "span", (100 * chance).toFixed(1) + " %");
    return item;
  }

  function show() {
    const chosen = sliders.map((slider) => Number(slider.value));
    const state = data.states[chosen.join(",")];
    const words = ["guidance", "temperature", "top-k"].map((name, axis) => name + " " + data.values[axis][chosen[axis]]);
    sliders.forEach((slider, axis) => {
      const text = data.values[axis][chosen[axis]];
      slider.parentNode.querySelector("output").textContent = text;
      slider.setAttribute("aria-valuetext", text);
    });
    find(".chances").replaceChildren(...state.bars.map(bar));
    find(".pictures").replaceChildren(
      ...state.pictures.map((picture) => {
        const item = document.createElement("li");
        const image = add(item, "img");
        image.src = picture.source;
        image.alt = picture.alt;
        return item;
      })
    );
    status.textContent = "With " + words.join(", ") + ": " + state.note;
  }

  sliders.forEach((slider) => slider.addEventListener("input", show));
  find(".controls").hidden = false;
  show();
}
