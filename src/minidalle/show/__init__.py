"""Pictures of all of it: what the chapters draw, and the parts that a reader can play with."""

from minidalle.data.pictures import contact_sheet, save_grid
from minidalle.show.about import about, hosted_on
from minidalle.show.attention import attention_maps, attention_viewer
from minidalle.show.codes import code_colours, code_map, ladder, overlay, palette, receptive_field, voronoi
from minidalle.show.controls import Turn, explore_sampling, sampling_controls
from minidalle.show.corruptions import Damage, corruption_picker
from minidalle.show.devices import sharded
from minidalle.show.explorer import Judged, ranking_explorer
from minidalle.show.extrapolation import extrapolation
from minidalle.show.grids import compare, grid
from minidalle.show.laws import scaling_law
from minidalle.show.machines import chips, roofline, systolic
from minidalle.show.plots import (
    bars,
    chances,
    codebook_usage,
    curves,
    heatmap,
    loss_curve,
    perplexity,
    rate_distortion,
    stacks,
)
from minidalle.show.ranking import blame, ranked
from minidalle.show.similarity import similarity_matrix, temperature_slider
from minidalle.show.speeds import speeds
from minidalle.show.style import style
from minidalle.show.widgets import State, code_picker, explore, prompt_box, prompt_gallery
from minidalle.show.words import merge_slider, pieces

__all__ = [
    "Damage",
    "Judged",
    "State",
    "Turn",
    "about",
    "attention_maps",
    "attention_viewer",
    "bars",
    "blame",
    "chances",
    "chips",
    "code_colours",
    "code_map",
    "code_picker",
    "codebook_usage",
    "compare",
    "contact_sheet",
    "corruption_picker",
    "curves",
    "explore",
    "explore_sampling",
    "extrapolation",
    "grid",
    "heatmap",
    "hosted_on",
    "ladder",
    "loss_curve",
    "merge_slider",
    "overlay",
    "palette",
    "perplexity",
    "pieces",
    "prompt_box",
    "prompt_gallery",
    "ranked",
    "ranking_explorer",
    "rate_distortion",
    "receptive_field",
    "roofline",
    "sampling_controls",
    "save_grid",
    "scaling_law",
    "sharded",
    "similarity_matrix",
    "speeds",
    "stacks",
    "style",
    "systolic",
    "temperature_slider",
    "voronoi",
]
