// The ranking explorer: choose a caption, n and an order, and the best of the first n is lit. `data` comes from explorer.py.
function explorer(root, data) {
  const find = (selector) => root.querySelector(selector);
  const caption = find(".explorer-caption");
  const order = find(".explorer-order");
  const slider = find("input[type=range]");
  const list = find(".explorer-pictures");
  const names = Object.keys(data.curves);

  // Ties keep the order in which they were drawn, as in the library.
  const orders = [
    () => 0,
    (one, other) => other.score - one.score,
    (one, other) => other.right - one.right || other.score - one.score,
  ];

  function item(entry, place, picked, drawn) {
    const made = document.createElement("li");
    const image = document.createElement("img");
    image.src = entry.source;
    image.alt = "number " + (place + 1) + ", " + (entry.right ? "right" : "wrong, looks like " + entry.seen);
    const words = document.createElement("span");
    words.textContent = entry.score.toFixed(2) + (entry.right ? " ✓" : " ✗");
    made.append(image, words);
    made.classList.toggle("explorer-pick", picked);
    made.classList.toggle("explorer-later", !drawn);
    return made;
  }

  function show() {
    const entries = data.candidates[caption.value];
    const count = Number(slider.value);
    let picked = 0;
    for (let place = 1; place < count; place++) if (entries[place].score > entries[picked].score) picked = place;
    const by = orders[order.value];
    const places = entries.map((_, place) => place);
    places.sort((one, other) => (one >= count) - (other >= count) || by(entries[one], entries[other]) || one - other);
    list.replaceChildren(...places.map((place) => item(entries[place], place, place === picked, place < count)));

    const right = entries.slice(0, count).filter((entry) => entry.right).length;
    const verdict = entries[picked].right ? "right" : "wrong, the judge sees “" + entries[picked].seen + "”";
    let words = "Of " + count + " drawn, " + right + (right === 1 ? " is" : " are") + " right. ";
    words += "CLIP picks the framed one, with " + entries[picked].score.toFixed(2) + ": " + verdict + ".";
    if (right && !entries[picked].right) words += " A right one was there, and the ranker missed it.";
    if (!right) words += " No ranker could have helped.";
    find(".status").textContent = words;
    find(".heading").textContent = "“" + data.captions[caption.value] + "”";
    slider.parentNode.querySelector("output").textContent = count;

    const points = Array.from(root.querySelectorAll(".explorer-plot circle"));
    const labels = Array.from(root.querySelectorAll(".explorer-name"));
    names.forEach((name, place) => {
      const [x, y] = data.curves[name][count - 1];
      points[place].setAttribute("cx", x);
      points[place].setAttribute("cy", y);
      labels[place].textContent = name + " " + data.shares[name][count - 1];
    });
  }

  [caption, order, slider].forEach((control) => control.addEventListener("input", show));
  find(".controls").hidden = false;
  show();
}
