"""What becomes of the pictures when the sampler multiplies in 8 bits?

One picture for each of some captions that training never saw, drawn twice with the same seed: in floats, and with `int8`.
Counted are equal codes, equal pictures, where the first code differs, and of both sides how many pictures are right: the
nearest real emoji, by the distance of code vectors, has the caption's role and hair and its skin tones (the judge by which
recipes are tuned). After the first code that differs a picture is another one, right or wrong: equal codes say how near the
probabilities are, the judge whether anything is lost.

Found on 2026-11-30 with the shipped emoji model on a CPU, float32 (README.md has more): of 80 pictures 52 are right in
floats and 51 in 8 bits; 86.1 % of the codes and 32.5 % of the pictures are equal.

    python -m benchmarks.rounding                    the shipped emoji model, the 80 captions of "valid"
    python -m benchmarks.rounding --split test       the 240 captions of "test"
"""

import argparse
import json
from typing import Any

import jax
import numpy as np

from benchmarks.report import machine, table, versions, where
from minidalle.bart import sample
from minidalle.bart.train import judge_drawn
from minidalle.data import emoji
from minidalle.measures import share
from minidalle.pipeline import Pipeline


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounding", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="emoji", help="whose emoji are drawn: shipped name or folder")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--split", choices=["valid", "test", "train"], default="valid")
    parser.add_argument("--captions", type=int, help="so many of them, from the first; all when not given")
    parser.add_argument(
        "--real", type=int, help="so many real emoji, beside the drawn ones, to look for the nearest in"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    pipe, data = Pipeline.load(options.model, clip=None, dtype=options.dtype), emoji.load()
    wanted = data.split(options.split)[: options.captions]
    real = np.union1d(wanted, np.arange(len(data))[: options.real])
    drawn = {name: draw(pipe, [data.captions[row] for row in wanted], options.seed, name) for name in (False, True)}
    codes = np.concatenate([pipe.encode(data.images[some]) for some in np.split(real, range(64, len(real), 64))])
    judge = (np.searchsorted(real, wanted), codes, np.asarray(pipe.vqgan.quantize.codebook()))
    parts = [data.parts[row] for row in real]
    found = {
        "machine": machine(),
        "versions": versions("minidalle", "jax", "flax"),
        "settings": vars(options),
        "agreement": agreement(drawn[False], drawn[True]),
        "judged": {
            name: {kind: share(hits) for kind, hits in judge_drawn(drawn[int8], *judge, parts).items()}
            for name, int8 in ((options.dtype, False), ("int8", True))
        },
    }
    print(json.dumps(found, indent=1) if options.json else in_tables(found))
    return found


def draw(pipe: Pipeline, captions: list[str], seed: int, int8: bool) -> np.ndarray:
    """The codes (n, L) of `pipe.generate(captions, 1, seed=seed, int8=int8)`, without pictures."""
    settings = {"guidance": pipe.sampling.guidance, "temperature": pipe.sampling.temperature, "int8": int8}
    blank = pipe.blank_ids, pipe.blank_mask
    return np.asarray(sample(pipe.bart, *pipe.read(captions), *blank, key=jax.random.key(seed), **settings))


def agreement(exact: np.ndarray, rounded: np.ndarray) -> dict[str, float]:
    """Shares of equal codes and of wholly equal pictures, and the median position of the first other code, all (n, L)."""
    same = exact == rounded
    first = np.where(same.all(axis=1), same.shape[1], same.argmin(axis=1))
    return {
        "pictures": len(same),
        "code_length": same.shape[1],
        "equal_codes": float(same.mean()),
        "equal_pictures": float(same.all(axis=1).mean()),
        "equal_first_codes": float(same[:, 0].mean()),
        "median_first_difference": float(np.median(first)),
    }


def in_tables(found: dict[str, Any]) -> str:
    """The findings as Markdown."""
    same = found["agreement"]
    lines = [
        where(found["machine"], found["versions"]),
        f"{same['pictures']} pictures of {same['code_length']} codes: {same['equal_codes']:.1%} of codes are equal, "
        f"{same['equal_pictures']:.1%} of pictures wholly, {same['equal_first_codes']:.1%} of first codes; half of the "
        f"pictures differ before code {same['median_first_difference']:.0f}",
    ]
    rows = [
        [name, *(f"{hits['share']:.1%} ({hits['low']:.0%} to {hits['high']:.0%})" for hits in judged.values())]
        for name, judged in found["judged"].items()
    ]
    header = ["multiplied in", "that emoji", "role and hair", "skin tones", "both"]
    return "\n\n".join([*lines, table(header, rows)])


if __name__ == "__main__":
    main()
