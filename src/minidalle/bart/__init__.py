"""From text ids to image codes: DalleBart, its objective, its training and its sampling."""

from minidalle.bart.config import DalleBartConfig
from minidalle.bart.model import DalleBart
from minidalle.bart.objective import loss
from minidalle.bart.sampling import candidate_keys, sample, stream

__all__ = ["DalleBart", "DalleBartConfig", "candidate_keys", "loss", "sample", "stream"]
