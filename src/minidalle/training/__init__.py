"""Training, the same for every JAX model here: a recipe, an optimizer, and a loop that survives being killed."""

from minidalle.training.loop import TrainingInterrupted, fit
from minidalle.training.optimizer import learning_rate_schedule, make_optimizer
from minidalle.training.recipe import load_recipe, section
from minidalle.training.settings import compute_dtype, fit_with
from minidalle.training.tree import flatten_names, flatten_parameters, load_parameters

__all__ = [
    "TrainingInterrupted",
    "compute_dtype",
    "fit",
    "fit_with",
    "flatten_names",
    "flatten_parameters",
    "learning_rate_schedule",
    "load_parameters",
    "load_recipe",
    "make_optimizer",
    "section",
]
