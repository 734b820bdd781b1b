// One row of the similarity matrix: the slider chooses a temperature, the bars follow. `data` comes from similarity.py.
function temperature(root, data) {
  const slider = root.querySelector("input");
  const chosen = root.querySelector("label output");
  const bars = Array.from(root.querySelectorAll(".chance"));
  const status = root.querySelector(".status");

  function show() {
    const step = Number(slider.value);
    chosen.textContent = data.temperatures[step];
    slider.setAttribute("aria-valuetext", data.temperatures[step]);
    bars.forEach((bar, place) => {
      const share = data.shares[step][place];
      bar.querySelector(".bar").style.width = share + "%";
      bar.querySelector("output").textContent = share.toFixed(1) + " %";
    });
    status.textContent = "loss of this row: " + data.losses[step] + " nats";
  }

  slider.addEventListener("input", show);
  slider.disabled = false;
  show();
}
