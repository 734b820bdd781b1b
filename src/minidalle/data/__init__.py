"""Pictures with captions: `emoji` (shipped, real), `shapes` (drawn, with an oracle) and your own through `load_pairs`."""

from minidalle.data.pairs import Pair, load_pairs

__all__ = ["Pair", "load_pairs"]
