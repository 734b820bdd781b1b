"""Pictures of all of it: what the chapters draw, and the parts that a reader can play with."""

from minidalle.data.pictures import contact_sheet, save_grid
from minidalle.show.about import about, hosted_on
from minidalle.show.codes import code_colours, code_map, ladder, palette, receptive_field, voronoi
from minidalle.show.grids import compare, grid
from minidalle.show.plots import bars, codebook_usage, curves, heatmap, loss_curve, perplexity, rate_distortion, stacks
from minidalle.show.similarity import similarity_matrix, temperature_slider
from minidalle.show.style import style
from minidalle.show.widgets import State, code_picker, explore, prompt_box, prompt_gallery

__all__ = [
    "State",
    "about",
    "bars",
    "code_colours",
    "code_map",
    "code_picker",
    "codebook_usage",
    "compare",
    "contact_sheet",
    "curves",
    "explore",
    "grid",
    "heatmap",
    "hosted_on",
    "ladder",
    "loss_curve",
    "palette",
    "perplexity",
    "prompt_box",
    "prompt_gallery",
    "rate_distortion",
    "receptive_field",
    "save_grid",
    "similarity_matrix",
    "stacks",
    "style",
    "temperature_slider",
    "voronoi",
]
