"""Checkpoints in and out: minidalle's own format (`native`), and the originals' (`dallebart`, `vqgan`, `clip`).

`load_dallebart`, `load_vqgan`, `load_clip` and `load_bart` read what the original projects saved, from a folder or by its name on the
Hugging Face Hub; `load_min_dalle` reads the files of min-dalle, and `convert` writes any of them in another's format.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bart import load_bart
    from .clip import load_clip
    from .dallebart import load_dallebart
    from .min_dalle import load_min_dalle
    from .vqgan import load_vqgan

__all__ = ["load_bart", "load_clip", "load_dallebart", "load_min_dalle", "load_vqgan"]


def __getattr__(name: str) -> Any:
    """Import a loader when it is first asked for: `minidalle info` needs neither JAX nor PyTorch."""
    if name in __all__:
        return getattr(importlib.import_module(f".{name.removeprefix('load_')}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
