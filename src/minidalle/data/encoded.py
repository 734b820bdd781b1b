"""Pictures as codes, encoded once and kept in Parquet: what `minidalle encode` writes and DalleBart trains on.

A shard is one Parquet file with a row for each picture: `caption` (text), `codes` (a list of int32) and `source` (text).
The original DALL·E mini kept `caption` and `encoding`; its files are read as well.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from minidalle.files import replacing

CODE_COLUMNS = ("codes", "encoding")  # ours, the original's
CAPTION_COLUMNS = ("caption", "text")
ORIGINAL_N_EMBED = 16384  # of the VQGAN whose codes the original was trained on; its files do not say it
KEY = b"minidalle"  # of the metadata that holds the codebook's size


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
        """Write one shard, whole or not at all; return its path. The same content gives the same bytes.

        Raises:
            ImportError: pyarrow is not installed.
        """
        pa, pq = _arrow()
        path = Path(path)
        texts = {"caption": self.captions, "source": self.sources}
        columns = {name: pa.array([_utf8(text) for text in values], pa.string()) for name, values in texts.items()}
        columns["codes"] = _lists(pa, self.codes)
        about = json.dumps({"n_embed": self.n_embed, "code_length": int(self.codes.shape[1])})
        table = pa.table({name: columns[name] for name in ("caption", "codes", "source")})
        with replacing(path) as temporary:
            # With checksums: a flipped bit would else be another code, and nobody would know.
            pq.write_table(
                table.replace_schema_metadata({KEY: about}), temporary, compression="zstd", write_page_checksum=True
            )
        return path

    @classmethod
    def load(cls, path: str | Path | Sequence[str | Path], *, n_embed: int | None = None) -> "Encoded":
        """Read codes: a shard, a folder or a pattern or a list of shards, in the order of their names.

        The original's shards are read too (`encoding`, and no `source`), and the `.npz` files of minidalle 0.1.

        Args:
            path: where they are.
            n_embed: size of the codebook, for files that do not tell it; None takes the original's 16,384 there.

        Raises:
            FileNotFoundError: there is no such file. ValueError: it is damaged or something else, or shards do not
            belong together. ImportError: pyarrow is not installed.
        """
        paths = find_token_shards(path)
        if len(paths) == 1 and paths[0].suffix == ".npz":
            return _load_npz(cls, paths[0])
        parts = [read_token_shard(each, n_embed=n_embed) for each in paths]
        kinds = {(part.codes.shape[1], part.n_embed) for part in parts if len(part.codes)}
        if len(kinds) > 1:
            raise ValueError(
                f"{path}: shards differ in (code length, codebook size): {sorted(kinds)}; keep each kind in a folder of its own"
            )
        filled = [part for part in parts if len(part.codes)] or parts[:1]
        return cls(
            np.concatenate([part.codes for part in filled]),
            [caption for part in filled for caption in part.captions],
            [source for part in filled for source in part.sources],
            filled[0].n_embed,
        )


def find_token_shards(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that `Encoded.load` reads for `path`, sorted by name (a list: in its order).

    Raises:
        FileNotFoundError: there are none.
    """
    if not isinstance(path, str | os.PathLike):
        found = [Path(each) for each in path]
    elif Path(path).is_dir():
        found = sorted(Path(path).glob("[!.]*.parquet"))
        if not found and (Path(path) / "codes.npz").is_file():
            found = [Path(path) / "codes.npz"]
    else:
        found = [Path(path)] if Path(path).exists() else [Path(each) for each in sorted(glob(str(path)))]
    if missing := [each for each in found if not each.is_file()]:
        raise FileNotFoundError(f"no codes at {missing[0]}; write them with `minidalle encode`")
    if not found:
        raise FileNotFoundError(f"no codes at {path}; write them with `minidalle encode`")
    return found


def read_token_shard(path: str | Path, *, n_embed: int | None = None) -> Encoded:
    """Read one Parquet file of codes, ours or the original's; arguments and errors as `Encoded.load`."""
    pa, pq = _arrow()
    path = Path(path)
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} does not hold codes ({error}); write them anew with `minidalle encode`") from error
    codes, captions = (_first(table.column_names, known) for known in (CODE_COLUMNS, CAPTION_COLUMNS))
    if codes is None or captions is None:
        raise ValueError(
            f"{path} has the columns {', '.join(table.column_names)}; expected one of codes "
            f"({', '.join(CODE_COLUMNS)}) and one of captions ({', '.join(CAPTION_COLUMNS)})"
        )
    about = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    kind = table.column(codes).type
    if not ((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_integer(kind.value_type)):
        raise ValueError(f"{path}: column {codes!r} holds {kind}; expected lists of whole numbers")
    rows = table.column(codes).combine_chunks()
    lengths = set(rows.value_lengths().to_pylist()) if len(rows) else {about.get("code_length", 0)}
    if len(lengths) != 1 or None in lengths or rows.flatten().null_count:
        raise ValueError(
            f"{path}: column {codes!r} has rows of {len(lengths)} lengths; every picture has as many codes"
        )
    values = rows.flatten().to_numpy(zero_copy_only=False).astype(np.int32).reshape(len(rows), lengths.pop())
    sources = (
        table.column("source").to_pylist()
        if "source" in table.column_names
        else [f"{path.name}/{row}" for row in range(len(rows))]
    )
    texts = [caption or "" for caption in table.column(captions).to_pylist()]
    return Encoded(values, texts, sources, about.get("n_embed") or n_embed or ORIGINAL_N_EMBED)


def count_pictures(path: str | Path) -> int:
    """How many pictures a Parquet file of codes holds, read from its end alone."""
    return read_footer(path)[0]


def read_footer(path: str | Path) -> tuple[int, dict[str, int]]:
    """How many pictures a shard holds, and `{"n_embed", "code_length"}` where it says so, read from its end alone.

    Raises:
        ValueError: it is no Parquet file, or half of one. ImportError: pyarrow is not installed.
    """
    pa, pq = _arrow()
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} does not hold codes ({error}); write them anew with `minidalle encode`") from error
    return footer.num_rows, json.loads((footer.metadata or {}).get(KEY, b"{}"))


def _load_npz(cls: type[Encoded], path: Path) -> Encoded:
    try:
        with np.load(path, allow_pickle=False) as file:
            return cls(file["codes"], file["captions"].tolist(), file["sources"].tolist(), int(file["n_embed"]))
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} does not hold codes ({error}); write them anew with `minidalle encode`") from error


def _lists(pa: Any, codes: np.ndarray) -> Any:
    """Codes `(n, length)` as a column of lists."""
    starts = np.arange(len(codes) + 1, dtype=np.int32) * codes.shape[1]
    return pa.ListArray.from_arrays(starts, np.ascontiguousarray(codes, np.int32).reshape(-1))


def _utf8(text: str) -> str:
    """A text that Parquet can hold: a file name may be no valid UTF-8, which Python notes as lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    return next((name for name in known if name in columns), None)


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("codes are kept in Parquet files; install pyarrow: pip install pyarrow") from error
    return pyarrow, pyarrow.parquet
