"""From text ids to image codes: DalleBart, its objective, its training and its sampling."""

from minidalle.bart.config import DalleBartConfig
from minidalle.bart.looking import Looks, attention_weights, look
from minidalle.bart.model import DalleBart
from minidalle.bart.objective import loss
from minidalle.bart.sampling import candidate_keys, sample, stream

__all__ = [
    "DalleBart",
    "DalleBartConfig",
    "Looks",
    "attention_weights",
    "candidate_keys",
    "look",
    "loss",
    "sample",
    "stream",
]
