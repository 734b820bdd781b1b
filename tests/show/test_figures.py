"""The figures say what they were given: exact pixels, right numbers, labels that do not collide."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from minidalle import show
from minidalle.show.codes import _nearest, square
from minidalle.show.plots import _running_mean


def drawn(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))


def texts(figure) -> list[str]:
    return [found.get_text() for found in figure.findobj(Text) if found.get_visible() and found.get_text()]


def boxes(figure, chosen):
    figure.draw_without_rendering()
    return [found.get_window_extent() for found in chosen]


PICTURES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)

EXAMPLES = {
    "grid": lambda: show.grid(PICTURES, ["a cat"] * 6, np.arange(6), title="cats"),
    "compare": lambda: show.compare({"original": PICTURES, "back": PICTURES / 255}),
    "long labels": lambda: show.compare({"woman astronaut: medium skin tone": [*PICTURES] * 2, "a": [*PICTURES] * 2}),
    "curves of runs": lambda: show.curves({"one": [[1, 2, 3], [2, 2, 2]], "two": [3, 2, 1]}, x=[1, 2, 4]),
    "curves": lambda: show.curves({"one": [1, 2, 3], "two": ([1, 5], [2, 3])}, logy=True, logx=True),
    "loss": lambda: show.loss_curve(np.linspace(3, 1, 200), title="loss"),
    "usage": lambda: show.codebook_usage({"poor": [9, 0, 0, 0], "rich": [3, 2, 3, 2]}, title="use"),
    "bars": lambda: show.bars({"role": {"first": 1.0, "best": 2.0}, "tone": {"first": 1.5, "best": 2.5}}, floor=1),
    "stacks": lambda: show.stacks(
        {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0, "y": 0.5}}, limits={"end": 3.0}, title="t"
    ),
    "extrapolation": lambda: show.extrapolation(
        {"slope": {"one": [[4, 2, 1]], "two": [[5, 3, 2], [6, 3, 2]]}, "level": {"one": [1, 1, 1]}}, [10, 20, 40]
    ),
    "law": lambda: show.scaling_law(
        {"fitted": ([1e4, 1e5], [1.0, 0.8]), "later": ([1e6], [0.7])},
        ([1e4, 1e6], [1, 0.7], [0.9, 0.6], [1.1, 0.8]),
        floor=0.6,
        beyond=2e5,
        xlabel="parameters",
        title="t",
    ),
    "heatmap": lambda: show.heatmap(np.eye(3), write=1, xticks=list("abc"), yticks=list("abc")),
    "rate": lambda: show.rate_distortion({"small": {16: (4, 20.0), 64: (6, 24.0)}, "big": {16: (8, 22.0)}}),
    "code_map": lambda: show.code_map(np.arange(16), image=PICTURES[0], title="codes"),
    "palette": lambda: show.palette(torch.eye(3), torch.tensor([1, 2, 3]), title="three"),
    "voronoi": lambda: show.voronoi([[0, 0], [1, 1]], [[0, 0.1], [1, 0.9]], history=[[[0.5, 0.5], [0.6, 0.6]]]),
    "field": lambda: show.receptive_field(np.eye(8), PICTURES[0], box=(0, 0, 4, 4), title="sees"),
    "attention_maps": lambda: show.attention_maps(PICTURES[0], np.eye(16)[:, :3], ["<s>", " cat", " $"], title="looks"),
    "chances": lambda: show.chances({"as it is": [0.5, 0.3, 0.2], "top 1": [1, 0, 0], "flat": [1 / 3] * 3}),
    "overlay": lambda: show.overlay(PICTURES, np.arange(96).reshape(6, 16), label="bits", captions=["a cat"] * 6),
    "ranked": lambda: show.ranked({"a $ cat": (PICTURES, np.arange(6), np.arange(6) % 2)}),
    "blame": lambda: show.blame(0.4, [0.4, 0.5, 0.5], [0.4, 0.7, 0.9], interval=[[0.3] * 3, [0.6] * 3]),
    "speeds": lambda: show.speeds({"sum": {"a": 1.0, "b": 0.01, "c": 30.0}, "loop": {"a": 2.0, "c": 1.0}}, "a"),
    "ladder": lambda: show.ladder({"picture": PICTURES[0], "codes": np.arange(16).reshape(4, 4)}),
}


READABLE = ["curves", "curves of runs", "loss", "usage", "bars", "extrapolation", "heatmap", "chances", "blame", "rate"]
READABLE += ["grid", "compare", "long labels", "ranked", "overlay", "attention_maps", "stacks", "speeds", "field"]
READABLE += ["law", "ladder", "palette", "code_map"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_figure_stands_on_white_and_fits_a_page(name):
    figure = EXAMPLES[name]()
    pixels = drawn(figure)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all(), "a white rim, so that it reads on a dark page"
    assert pixels.shape[1] <= 9.5 * 150, "no wider than a page at the book's resolution"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 2, "something is drawn"


@pytest.mark.parametrize("name", READABLE)
def test_the_words_of_a_figure_can_be_read_on_a_phone(name):
    figure = EXAMPLES[name]()
    inches = drawn(figure).shape[1] / figure.dpi
    pixels = 342 / inches / 72  # of each point, where 342 pixels are left beside the margins
    words = [found for found in figure.findobj(Text) if found.get_text().strip()]
    assert min(found.get_fontsize() for found in words) * pixels > 7.4


def test_a_figure_shows_itself_in_a_fresh_interpreter_without_pyplot_windows():
    code = (
        "from minidalle.show import bars; import sys; f = bars({'a': 1.0});"
        "assert f._repr_png_().startswith(b'\\x89PNG'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_readers_own_settings_are_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    EXAMPLES["bars"]()
    assert dict(matplotlib.rcParams) == before


def test_a_grid_shows_only_colours_of_its_pictures():
    figure = show.grid(PICTURES[:1], size=2)
    colours = {tuple(colour) for colour in drawn(figure).reshape(-1, 3)}
    assert colours - {(255, 255, 255)} == {tuple(colour) for colour in PICTURES[0].reshape(-1, 3)}


def test_an_extrapolation_ends_where_the_bias_would():
    """Values 3 + 50 / n lie on a straight line over 1/n, whose left end is 3."""
    n = np.array([10, 20, 50])
    figure = show.extrapolation({"": {"biased": 3 + 50 / n}}, n)
    diamond = next(line for line in figure.axes[0].lines if line.get_marker() == "D")
    np.testing.assert_allclose([*diamond.get_xdata(), *diamond.get_ydata()], [0, 3], atol=1e-9)
    assert {"∞", "10", "20", "50", "biased"} <= set(texts(figure))
    with pytest.raises(ValueError, match="2 values for 3 sizes"):
        show.extrapolation({"": {"biased": [1, 2]}}, n)


def test_a_law_is_grey_where_it_is_extrapolated():
    figure = EXAMPLES["law"]()
    (axis,) = figure.axes
    left, right = axis.get_xlim()
    shaded = [patch.get_x() for patch in axis.patches]
    assert shaded == [2e5] and left < 1e4 and right > 1e6
    assert {"fitted", "later", "floor E", "parameters"} <= set(texts(figure)) | {
        t.get_text() for t in figure.legends[0].texts
    }
    with pytest.raises(ValueError, match="no runs"):
        show.scaling_law({})


def test_captions_are_shown_as_written_dollars_and_all():
    figure = show.grid(PICTURES[:2], ["costs $5 or $6", "a_b^c \\alpha"], [0.123, 0.456])
    drawn(figure)
    assert {"costs \\$5 or \\$6\n0.12", "a_b^c \\alpha\n0.46"} == set(texts(figure))


@pytest.mark.parametrize("columns", [3, 6])
def test_long_captions_of_neighbours_do_not_touch(columns):
    caption = "a woman firefighter with medium-dark skin tone and curly hair"
    figure = show.grid(PICTURES, [caption] * 6, columns=columns)
    placed = boxes(figure, [axis.texts[0] for axis in figure.axes])
    pictures = [axis.images[0].get_window_extent() for axis in figure.axes]
    for index, box in enumerate(placed):
        assert not any(box.overlaps(other) for other in placed[:index] + pictures)


def test_a_long_label_stands_above_its_row_and_takes_no_room_from_the_pictures():
    short, long = (show.compare({name: [*PICTURES[:4]] * 2}) for name in ("cat", "woman astronaut: medium skin tone"))
    assert len(boxes(long, long.axes)) == 8
    first, second, *_ = [axis.images[0].get_window_extent() for axis in long.axes]
    assert second.x0 - first.x1 < 0.2 * first.width, "the pictures stand side by side"
    (label,) = boxes(long, long.axes[0].texts)
    assert label.y0 >= first.y1 - 1 and label.width > first.width
    assert not short.axes[0].texts and short.axes[0].get_ylabel() == "cat"


def test_the_first_of_the_codes_in_use_is_drawn_as_wide_as_the_others():
    (axis,) = show.codebook_usage([1, 0, 3, 0]).axes
    (steps,) = axis.patches
    np.testing.assert_allclose(steps.get_data().edges, [-0.5, 0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(steps.get_data().values, [75, 25, 0, 0])


def test_a_logarithmic_axis_counts_in_plain_numbers_where_they_are_short():
    figure = show.curves({"one": [1.5, 3, 60], "two": [2, 4, 8]}, x=[1, 10, 100], logx=True, logy=True)
    drawn(figure)
    (axis,) = figure.axes
    assert {"2", "5", "10", "20", "50"} <= {each.get_text() for each in axis.get_yticklabels()}
    assert {"1", "10", "100"} <= {each.get_text() for each in axis.get_xticklabels()}
    narrow = show.curves({"one": [1.3, 1.4, 1.7]}, logy=True)
    drawn(narrow)
    shown = [each.get_text() for each in narrow.axes[0].get_yticklabels(which="both")]
    assert sum(bool(text) for text in shown) > 2, "an axis shorter than from 1 to 5 keeps its own numbers"


def test_no_name_of_a_setting_or_legend_covers_a_point():
    settings = (4, 16, 64)
    lines = {f"side {side}": {each: (side * each, 10 + side + each**0.5) for each in settings} for side in (1, 16, 256)}
    figure = show.rate_distortion(lines)
    (axis,), (legend,) = figure.axes, figure.legends
    covers = [*boxes(figure, axis.texts), legend.get_window_extent()]
    points = [axis.transData.transform(point) for line in axis.lines for point in line.get_xydata()]
    assert not any(box.contains(*point) for box in covers for point in points)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: show.grid([]), "no pictures"),
        (lambda: show.grid(PICTURES, ["one"]), "1 captions for 6 pictures"),
        (lambda: show.grid(PICTURES, scores=[1.0]), "1 scores for 6 pictures"),
        (lambda: show.compare({"a": PICTURES, "b": PICTURES[:2]}), "differ in length"),
        (lambda: show.stacks({}), "no values"),
        (lambda: show.stacks({"a": {"x": 1.0}, "b": {"y": 1.0}}), "the parts x"),
        (lambda: show.heatmap([1.0, 2.0]), "matrix"),
        (lambda: show.curves({"a": [1, 2]}, x=[1, 2, 3]), "2 values over 3 points"),
        (lambda: show.loss_curve([{"step": 1, "speed": 3.0}]), "the log holds step, speed"),
        (lambda: show.loss_curve([]), "empty"),
        (lambda: show.codebook_usage([0, 0]), "at least one use"),
        (lambda: show.code_map(np.arange(15)), "15 codes do not fill"),
        (lambda: show.code_map(np.arange(16.0)), "float64"),
        (lambda: show.voronoi(np.zeros((2, 3)), np.zeros((2, 3))), "plane"),
        (lambda: show.receptive_field(np.zeros((2, 2))), "above 0"),
        (lambda: show.bars({}), "no values"),
        (lambda: show.ladder({}), "no steps"),
        (lambda: show.speeds({}, "a"), "no tasks"),
        (lambda: show.speeds({"sum": {"b": 1.0}}, "a"), "'sum' needs a time of 'a'"),
        (lambda: show.speeds({"sum": {"a": 1.0, "b": 0.0}}, "a"), "above 0"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_perplexity_is_the_exponential_of_the_entropy():
    assert show.perplexity([5, 5, 5, 5]) == pytest.approx(4)
    assert show.perplexity([5, 0, 0, 0]) == pytest.approx(1)
    counts = np.random.default_rng(0).integers(0, 50, 64)
    entropy = torch.distributions.Categorical(torch.as_tensor(counts / counts.sum())).entropy()
    assert show.perplexity(counts) == pytest.approx(float(entropy.exp()))


def test_usage_writes_its_numbers():
    written = " ".join(texts(show.codebook_usage([4, 4, 0, 0])))
    assert "2 of 4 codes in use" in written and "perplexity 2.0" in written


def test_the_running_mean_looks_back_only():
    values = np.random.default_rng(0).random(30)
    np.testing.assert_allclose(_running_mean(values, 1), values)
    smooth = _running_mean(values, 7)
    np.testing.assert_allclose(smooth[6:], np.convolve(values, np.ones(7) / 7, mode="valid"))
    np.testing.assert_allclose(smooth[2], values[:3].mean())


def test_loss_curve_reads_a_run_and_draws_each_loss_at_its_steps(tmp_path):
    rows = [{"step": step, "loss": 3.0 - step / 100, "speed": 9.0} for step in range(1, 101)]
    rows[49]["valid_loss"] = 2.75
    rows[99]["valid_loss"] = 2.25
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    figure = show.loss_curve(tmp_path / "log.jsonl", smooth=1)
    lines = [line.get_xydata() for line in figure.axes[0].lines]
    np.testing.assert_allclose(lines[0][:, 1], [row["loss"] for row in rows])
    np.testing.assert_allclose(lines[1], [[50, 2.75], [100, 2.25]])
    assert {"loss", "valid_loss"} <= set(texts(figure)) and "speed" not in texts(figure)


def test_names_at_line_ends_do_not_overlap():
    figure = show.curves({f"line {index}": [0, 1 + index / 1000] for index in range(5)})
    names = [found for found in figure.axes[0].texts if found.get_text().startswith("line")]
    placed = boxes(figure, names)
    assert len(placed) == 5
    assert not any(one.overlaps(other) for index, one in enumerate(placed) for other in placed[:index])


@pytest.mark.parametrize("logy", [False, True])
def test_a_name_stands_as_high_as_the_end_of_its_line(logy):
    figure = show.curves({"low": [3, 0.1], "high": [3, 1.0]}, xlabel="step", logy=logy)
    figure.draw_without_rendering()
    axis = figure.axes[0]
    for name, end in (("low", 0.1), ("high", 1.0)):
        (written,) = [found for found in axis.texts if found.get_text() == name]
        line_end = axis.transAxes.inverted().transform(axis.transData.transform((1, end)))[1]
        assert abs(written.xy[1] - line_end) < 0.01


def test_a_logarithmic_axis_is_written_in_plain_numbers():
    """0.5, 1, 2, 5 over one decade, 0.1, 1 and 10,000 over many, and no 6 × 10⁻¹ that takes the room of the curve."""
    narrow = show.curves({"loss": [0.4, 7.0]}, logy=True).axes[0].yaxis
    wide = show.curves({"power": [0, 1]}, x=[10, 10_000], logx=True).axes[0].xaxis
    for numbers, expected in ((narrow, {"0.5", "1", "2", "5"}), (wide, {"10", "100", "1,000", "10,000"})):
        numbers.figure.draw_without_rendering()
        assert expected <= {label.get_text() for label in numbers.get_ticklabels()}
        assert not any(label.get_text() for label in numbers.get_ticklabels(minor=True))


def test_few_marked_points_of_a_logarithmic_axis_are_its_ticks():
    axis = show.curves({"recall": [1, 3, 2]}, x=[8, 32, 512], logx=True, markers=True).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["8", "32", "512"]
    show.curves({"one point": [1]}, x=[8], logx=True, markers=True)
    crowded = show.curves({"recall": [1, 3, 2]}, x=[8, 9, 512], logx=True, markers=True).axes[0]
    assert "9" not in [label.get_text() for label in crowded.get_xticklabels()]


def test_counts_are_ticked_in_whole_numbers():
    axis = show.curves({"score": np.arange(8)}, x=np.arange(1, 9)).axes[0]
    assert all(place == round(place) for place in axis.get_xticks())
    assert any(place != round(place) for place in show.curves({"z": [1, 2, 3]}, x=[0, 0.5, 1]).axes[0].get_xticks())


def test_a_legend_of_bars_covers_neither_bars_nor_their_numbers():
    figure = show.bars({"whole decoder": {"counted": 100, "measured": 100}, "kept": {"counted": 7, "measured": 12}})
    (legend,) = boxes(figure, figure.legends)
    assert legend.y0 >= figure.axes[0].bbox.y1, "it stands above the axes, which keep their whole width"


def test_names_of_columns_are_turned_only_where_they_would_touch():
    short, long = (
        show.heatmap(np.eye(3), xticks=names).axes[0] for names in ("123", ["light", "medium-light", "dark"])
    )
    assert {label.get_rotation() for label in short.get_xticklabels()} == {0}
    assert {label.get_rotation() for label in long.get_xticklabels()} == {45}


def test_a_map_counts_rows_and_columns_in_whole_numbers():
    figure = show.heatmap(np.zeros((4, 3)))
    figure.draw_without_rendering()
    for numbers in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        assert all(place == round(place) for place in numbers.get_ticklocs())


def test_a_code_has_one_colour_everywhere_and_dark_text_reads_on_it():
    colours = show.code_colours(np.arange(16384))
    np.testing.assert_array_equal(show.code_colours([[417]])[0, 0], colours[417])
    linear = np.where(colours / 255 <= 0.04045, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    ink = (0x22 / 255 + 0.055) ** 2.4 / 1.055**2.4
    assert ((luminance + 0.05) / (ink + 0.05)).min() > 4.5, "WCAG 2.1 contrast for text"


def test_a_code_map_writes_every_code_in_its_cell():
    codes = np.random.default_rng(0).integers(0, 1024, (8, 8))
    axis = show.code_map(codes).axes[0]
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axis.texts}
    assert written == {place: str(code) for place, code in np.ndenumerate(codes)}
    placed = boxes(axis.figure, axis.texts)
    assert not any(one.overlaps(other) for one, other in zip(placed, placed[1:], strict=False))


def test_codes_become_a_square_map():
    assert square(np.arange(64)).shape == (8, 8)
    assert square(np.arange(6), (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_cells_of_the_plane_hold_the_nearest_centre():
    points, centres = np.random.default_rng(0).normal(size=(2, 200, 2))
    centres = centres[:7]
    brute = torch.cdist(torch.as_tensor(points), torch.as_tensor(centres)).argmin(-1).numpy()
    np.testing.assert_array_equal(_nearest(points, centres), brute)


def test_an_attention_map_colours_the_cells_that_look_and_writes_how_much():
    weights = np.zeros((16, 2))
    weights[5], weights[:, 1] = (0.8, 0.0), 0.25
    figure = show.attention_maps(np.full((8, 8, 3), 255, np.uint8), weights, ["cat", "dog"])
    one, every = (axis.images[0].get_array() for axis in figure.axes)
    assert (one[2:4, 2:4] < 0.9).any(-1).all() and np.delete(one.reshape(64, 3), [18, 19, 26, 27], 0).min() > 0.99
    assert (every < 0.9).any(-1).all()
    assert {"mean 5%\nmost 80%", "mean 25%\nmost 25%", "cat", "dog"} <= set(texts(figure))
    with pytest.raises(ValueError, match="for 3 words"):
        show.attention_maps(PICTURES[0], weights, ["a", "b", "c"])
    with pytest.raises(ValueError, match="not negative"):
        show.attention_maps(PICTURES[0], -weights, ["a", "b"])


def test_chances_are_shown_in_the_order_of_the_first_panel():
    figure = show.chances({"first": [0.1, 0.6, 0.3, 0.0], "second": [0.7, 0.2, 0.0, 0.1]}, most=3)
    first, second = ([bar.get_height() for bar in axis.patches] for axis in figure.axes)
    assert first == [0.6, 0.3, 0.1] and second == [0.2, 0.0, 0.7]
    crosses = [axis.lines[0].get_xdata().tolist() for axis in figure.axes]
    assert crosses == [[], [1]], "a cross where the chance is 0"


def test_an_overlay_covers_its_picture_on_one_scale():
    maps = np.stack([np.zeros(16), np.full(16, 2.0)])
    figure = show.overlay(PICTURES[:2], maps, label="bits")
    laid = [axis.images[1] for axis in figure.axes[2:4]]
    assert [list(image.get_extent()) for image in laid] == [[-0.5, 7.5, 7.5, -0.5]] * 2
    assert [image.get_clim() for image in laid] == [(0, 2.0)] * 2
    assert [image.get_array().shape for image in laid] == [(4, 4)] * 2
    with pytest.raises(ValueError, match="1 maps for 2 pictures"):
        show.overlay(PICTURES[:2], maps[:1], label="bits")


def test_several_runs_are_their_mean_within_their_range():
    (axis,) = show.curves({"three runs": [[1, 5], [2, 3], [6, 1]]}).axes
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [3, 3])
    (band,) = axis.collections
    low, high = band.get_datalim(axis.transData).intervaly
    assert (low, high) == (1, 6)


def test_speeds_are_ratios_to_the_base_and_those_below_one_are_written_as_fractions():
    figure = show.speeds({"sum": {"a": 3.0, "b": 0.06, "c": 4.0}, "loop": {"a": 1.0, "c": 50.0}}, "a")
    found = texts(figure)
    assert {"50×", "0.8×", "1/50×"} <= set(found)
    assert {"sum", "loop", "b", "c", "times as fast as a"} <= set(found)


def test_speeds_leave_out_a_contestant_that_a_task_lacks():
    figure = show.speeds({"sum": {"a": 1.0, "b": 0.25}, "loop": {"a": 1.0}}, "a")
    assert [text for text in texts(figure) if text == "4.0×"] == ["4.0×"]


def test_written_speeds_stay_inside_the_figure():
    figure = show.speeds({"sum": {"a": 1.0, "b": 1e-4, "c": 1e3}}, "a")
    (axis,) = figure.axes
    for box in boxes(figure, axis.texts):
        assert axis.bbox.x0 - 1 <= box.x0 and box.x1 <= axis.bbox.x1 + 1
