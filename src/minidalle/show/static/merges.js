// The slider of merges: choose a caption and how many merges are in force. `data` comes from words.py.
function merges(root, data) {
  const find = (selector) => root.querySelector(selector);
  const caption = find("select");
  const slider = find("input");
  const list = find(".pieces");
  const [before, after] = root.querySelectorAll(".steps button");

  function place() {
    const stages = data.stages[caption.value];
    let index = 0;
    while (index + 1 < stages.length && stages[index + 1][0] <= Number(slider.value)) index += 1;
    return index;
  }

  function show() {
    const stages = data.stages[caption.value];
    const index = place();
    const [number, cut] = stages[index];
    list.replaceChildren(
      ...cut.map((token) => {
        const item = document.createElement("li");
        const id = document.createElement("small");
        id.textContent = data.ids[token];
        item.append(data.tokens[token], id);
        item.className = "shade" + (token % 6);
        return item;
      })
    );
    find("output").textContent = slider.value;
    slider.setAttribute("aria-valuetext", slider.value + " merges, " + cut.length + " tokens");
    const pair = number ? data.merges[number - 1] : null;
    find(".status").textContent =
      cut.length + " tokens. " +
      (pair ? "The last merge that changed this caption: number " + number + ", “" + pair[0] + "” + “" + pair[1] + "”."
            : "Every byte is a token of its own.");
    before.disabled = index === 0;
    after.disabled = index + 1 === stages.length;
  }

  function step(by) {
    const stages = data.stages[caption.value];
    slider.value = stages[Math.max(0, Math.min(stages.length - 1, place() + by))][0];
    show();
  }

  caption.addEventListener("input", show);
  slider.addEventListener("input", show);
  before.addEventListener("click", () => step(-1));
  after.addEventListener("click", () => step(1));
  find(".controls").hidden = false;
  find(".steps").hidden = false;
  show();
}
