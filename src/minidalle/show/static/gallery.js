// The gallery of prompts: choose a state with the controls and its pictures appear. `data` comes from widgets.py.
function gallery(root, data) {
  const find = (selector) => root.querySelector(selector);
  const controls = Array.from(root.querySelectorAll("[data-axis]"));
  const pictures = find(".pictures");
  const status = find(".status");

  function chosen() {
    return controls.map((control) => Number(control.value));
  }

  function show() {
    const indices = chosen();
    const count = indices.pop(); // the last control is the number of pictures
    const state = data.states[indices.join(",")];
    const words = [];
    controls.forEach((control, place) => {
      const axis = data.axes[place];
      const text = axis ? axis.values[indices[place]] : String(count);
      const output = control.parentNode.querySelector("output");
      if (output) output.textContent = text;
      control.setAttribute("aria-valuetext", text);
      if (axis && place > 0) words.push(axis.name + " " + text);
    });
    pictures.replaceChildren(
      ...state.pictures.slice(0, count).map((picture) => {
        const item = document.createElement("li");
        const image = document.createElement("img");
        image.src = picture.source;
        image.alt = picture.alt;
        item.append(image);
        if (picture.score) item.append(picture.score);
        return item;
      })
    );
    pictures.classList.toggle("few", count <= 5);
    status.textContent = "“" + data.axes[0].values[indices[0]] + "” with " + words.join(", ") + "." + state.note;
  }

  controls.forEach((control) => control.addEventListener("input", show));
  find(".controls").hidden = false;
  show();
}
