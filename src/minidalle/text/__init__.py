"""Captions to ids: `normalize` as the original does, `Tokenizer`, and BART's corruptions in `noise`."""

from minidalle.text.normalizer import normalize
from minidalle.text.tokenizer import Tokenizer, byte_names

__all__ = ["Tokenizer", "byte_names", "normalize"]
