"""How close the networks come to what the originals computed: a table over recorded cases.

`python -m tools.parity [FOLDER...] [--dtype bfloat16] [--json]` compares every case below the folders (by default
`tests/fixtures`). A case is a folder with `io.npz`, inputs and outputs as the original's own code gave them, and a
checkpoint in the original's format; its kind is told from its files and the names of its arrays.

A relative error is max |ours − theirs| / max |theirs| over an array. Codes, which are whole numbers, are equal or not; the
share of them that is not stands in the error's place. In half precision codes are not compared.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tools.chapters import ROOT

FIXTURES = ROOT / "tests" / "fixtures"


@dataclass(frozen=True)
class Case:
    """What was recorded, where the weights are, and what we compute in."""

    name: str
    weights: Path  # folder of the checkpoint
    io: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]  # empty where there is no meta.json
    dtype: str

    @property
    def exact(self) -> bool:
        """Whether whole numbers can be expected to agree, and gradients are worth comparing."""
        return self.dtype == "float32"


@dataclass(frozen=True)
class Row:
    """One output of one case."""

    case: str
    output: str
    error: float  # relative error; of codes, the share that differs
    codes: bool
    compared: int  # numbers compared


Found = Iterator[tuple[str, Any, Any]]  # (output, ours, theirs)


def kind_of(weights: Path, io: Mapping[str, np.ndarray]) -> Callable[[Case], Found] | None:
    """The comparison for a case, by its files and arrays; None where there is none."""
    from tools import parity_networks as kinds

    if "s0:warped" in io:
        return kinds.sampling
    if "decoder_input_ids" in io and "attention_mask_uncond" in io:
        return kinds.dallebart
    if "img0:pixel_values" in io:
        return kinds.vqgan_jax
    if "img0:x" in io or {"image", "dec", "indices"} <= io.keys():
        return kinds.taming
    if {"input_ids", "pixel_values"} <= io.keys():
        return kinds.clip
    if "z_logits" in io:
        return kinds.dvae
    if {"text_tokens", "encoder_state"} <= io.keys():
        return kinds.min_dalle
    if "vqgan_jax_dec_first" in io or (weights / "detoker.pt").is_file():
        return kinds.detoker
    return None


def compare(folder: Path, dtype: str = "float32", weights: Path | None = None) -> list[Row]:
    """All rows of a case.

    Args:
        folder: holds `io.npz`, and `meta.json` where the kind needs it.
        dtype: what our networks compute in.
        weights: the checkpoint's folder, if it is another.

    Raises:
        ValueError: the case is of no kind that is compared, or its checkpoint is refused.
        FileNotFoundError: there is no checkpoint.
    """
    io = dict(np.load(folder / "io.npz"))
    meta_file = folder / "meta.json"
    meta = json.loads(meta_file.read_text(encoding="utf8")) if meta_file.is_file() else {}
    weights = weights or folder
    kind = kind_of(weights, io)
    if kind is None:
        raise ValueError("no kind of case that is compared here")
    rows = []
    with jax.default_matmul_precision("highest"):
        for output, ours, theirs in kind(Case(folder.name, weights, io, meta, dtype)):
            ours, theirs = np.asarray(ours), np.asarray(theirs)
            codes = np.issubdtype(theirs.dtype, np.integer)
            error = float((ours != theirs).mean()) if codes else relative_error(ours, theirs)
            rows.append(Row(folder.name, output, error, codes, theirs.size))
    return rows


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max |ours − theirs| / max |theirs|; infinite where the shapes or the places of infinities and NaNs differ."""
    finite = np.isfinite(theirs)
    if ours.shape != theirs.shape or not np.array_equal(np.isfinite(ours), finite):
        return float("inf")
    difference = np.abs(ours[finite].astype(np.float64) - theirs[finite]).max(initial=0)
    return float(difference / max(np.abs(theirs[finite]).max(initial=0), np.finfo(np.float32).tiny))


def cases(folders: list[Path]) -> list[Path]:
    """Every folder with recorded arrays, in order."""
    return sorted({file.parent for folder in folders for file in folder.rglob("io.npz")})


def in_table(rows: list[Row], left_out: Mapping[str, str]) -> str:
    """The rows as Markdown, and what was left out."""
    lines = ["| case | output | largest relative error | numbers |", "|---|---|---:|---:|"]
    for row in rows:
        error = f"{row.error:.1e}" if not row.codes else "equal" if row.error == 0 else f"{row.error:.1%} differ"
        lines.append(f"| {row.case} | {row.output} | {error} | {row.compared:,} |")
    lines += ["", *(f"- {case}: {reason}" for case, reason in left_out.items())] if left_out else []
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.parity", description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[FIXTURES])
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows, left_out = [], {}
    for folder in cases(options.folders):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows += compare(folder, options.dtype)
        except (ValueError, FileNotFoundError) as error:
            left_out[folder.name] = str(error)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "left_out": left_out}, indent=1))
    else:
        print(in_table(rows, left_out))


if __name__ == "__main__":
    main()
