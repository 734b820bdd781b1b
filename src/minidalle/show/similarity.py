"""Pictures against captions: the matrix that CLIP is trained on, and one row of it at many temperatures."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from minidalle.data.pictures import to_uint8
from minidalle.show.fragment import Fragment, data_uri, escape, fragment
from minidalle.show.style import INK, PALETTE, WIDTH, Picture, add_title, new_figure, styled

__all__ = ["similarity_matrix", "temperature_slider"]


@styled
def similarity_matrix(images, captions: Sequence[str], values, *, label: str = "", title: str = "") -> Picture:
    """A matrix (pictures, captions) with each picture before its row, each caption above its column, its diagonal framed.

    images: (N, height, width, 3). captions: M texts. values: (N, M), written into the cells with two digits.
    label: what the colours measure. Raises ValueError when the matrix does not have a row for each picture and a column
    for each caption.
    """
    values = np.asarray(values, float)
    pictures = [to_uint8(image) for image in images]
    if values.shape != (len(pictures), len(captions)):
        raise ValueError(f"values have shape {values.shape}; expected {(len(pictures), len(captions))}")
    rows, columns = values.shape
    cell = min(0.62, (WIDTH - 1.2) / (columns + 1))  # the names above lean over the right edge
    figure, ((axis,),) = new_figure(cell * (columns + 1) + 1.2, cell * rows + 2.0)
    drawn = axis.imshow(values, cmap="viridis", interpolation="nearest")
    for row, picture in enumerate(pictures):
        inside = axis.inset_axes((-1.5, row - 0.46, 0.92, 0.92), transform=axis.transData)
        inside.imshow(picture, interpolation="nearest")
        inside.set_axis_off()
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = drawn.cmap(drawn.norm(value))
        ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=ink)
    for place in range(min(rows, columns)):
        axis.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor=PALETTE[1], linewidth=2.5))
    names = [textwrap.fill(str(caption), 26).replace("$", r"\$") for caption in captions]
    axis.set_xticks(range(columns), names, rotation=45, ha="left", rotation_mode="anchor", fontsize=9)
    axis.xaxis.tick_top()
    axis.set_yticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axis, label=label, location="bottom", shrink=0.8, aspect=30, pad=0.03)
    add_title(figure, title)
    return figure


def temperature_slider(
    image, captions: Sequence[str], similarities, *, temperatures: Sequence[float], start: int = 0, right: int = 0
) -> Fragment:
    """One row of the matrix as probabilities, with a slider for the temperature; computed beforehand, needs no kernel.

    image: (height, width, 3), the row's picture. captions, similarities: (M,), cosines in [−1, 1].
    temperatures: the slider's steps, positive; probabilities are softmax(similarities / temperature). start: the step
    shown first. right: the index of the picture's own caption, whose loss −ln p is written below.
    """
    similarities, steps = np.asarray(similarities, float), np.asarray(temperatures, float)
    if similarities.shape != (len(captions),) or not len(captions):
        raise ValueError(
            f"similarities have shape {similarities.shape} for {len(captions)} captions; give one for each"
        )
    if not len(steps) or steps.min() <= 0:
        raise ValueError(f"temperatures are {steps.tolist()}; give at least one, each above 0")
    if not 0 <= start < len(steps) or not 0 <= right < len(captions):
        raise ValueError(f"start is {start} and right is {right}; expected places in {len(steps)} and {len(captions)}")
    logits = similarities / steps[:, None]
    logits = logits - logits.max(1, keepdims=True)
    logarithms = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    data = {
        "temperatures": [f"{step:.3g}" for step in steps],
        "shares": (100 * np.exp(logarithms)).round(1).tolist(),
        "losses": [f"{loss:.3f}" for loss in -logarithms[:, right]],
    }
    bars = []
    for place, (caption, similarity, share) in enumerate(
        zip(captions, similarities, data["shares"][start], strict=True)
    ):
        own = " own" if place == right else ""
        bars.append(
            f'<li class="chance{own}"><span>{escape(caption)}</span><span>cos {similarity:.2f}</span>'
            f'<span class="track"><span class="bar" style="width:{share}%"></span></span><output>{share:.1f} %</output></li>'
        )
    body = (
        f'<div class="heated"><img src="{data_uri(image, 100)}" alt="The picture of this row">'
        f"<label>Temperature <output>{data['temperatures'][start]}</output>"
        f'<input type="range" min="0" max="{len(steps) - 1}" value="{start}" step="1" disabled></label></div>\n'
        f'<ul class="rivals">{"".join(bars)}</ul>\n'
        f'<p class="status" role="status">loss of this row: {data["losses"][start]} nats</p>'
    )
    return fragment("temperature", body, data, "Probabilities of captions at the temperature that you choose")
