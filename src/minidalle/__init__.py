"""minidalle: DALL·E mini, step by step; a small library and the book that it was written for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipeline import Candidates, Pipeline

__version__ = "0.1.0"
__all__ = ["Candidates", "Pipeline"]


def __getattr__(name: str) -> Any:
    """Import the pipeline when it is first asked for: `import minidalle` alone starts neither JAX nor PyTorch."""
    if name in __all__:
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'minidalle' has no attribute {name!r}")
