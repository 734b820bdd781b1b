"""Pictures as codes, encoded once and kept: what DalleBart trains on, and what `minidalle encode` writes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minidalle.files import replacing


@dataclass(frozen=True)
class Encoded:
    """Captioned pictures as codes.

    Attributes:
        codes: `(n, code_length)` int32.
        captions: the caption of each, "" where there is none.
        sources: where each came from.
        n_embed: size of the codebook that the codes index.
    """

    codes: np.ndarray
    captions: list[str]
    sources: list[str]
    n_embed: int

    def __post_init__(self):
        if not len(self.codes) == len(self.captions) == len(self.sources):
            raise ValueError(
                f"{len(self.codes)} rows of codes, {len(self.captions)} captions and {len(self.sources)} sources; "
                "there must be one of each for every picture"
            )
        if self.codes.size and not 0 <= self.codes.min() <= self.codes.max() < self.n_embed:
            raise ValueError(f"codes must lie in [0, {self.n_embed}), got {self.codes.min()} to {self.codes.max()}")

    def save(self, path: str | Path) -> Path:
        """Write an `.npz`, whole or not at all; return its path."""
        path = Path(path)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                codes=self.codes.astype(np.int32),
                captions=np.array(self.captions, dtype=np.str_),
                sources=np.array(self.sources, dtype=np.str_),
                n_embed=self.n_embed,
            )
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Encoded":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file. ValueError: it is damaged or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(file["codes"], file["captions"].tolist(), file["sources"].tolist(), int(file["n_embed"]))
        except FileNotFoundError:
            raise FileNotFoundError(f"no codes at {path}; write them with `minidalle encode`") from None
        except (KeyError, ValueError, OSError, EOFError) as error:
            raise ValueError(
                f"{path} does not hold codes ({error}); write them anew with `minidalle encode`"
            ) from error
