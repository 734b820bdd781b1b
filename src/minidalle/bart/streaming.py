"""Training DalleBart on token shards that do not fit into memory: a recipe with `[data] reading = "grain"`.

What is in memory is a window of shards and the held-out pictures. One shard, which the seed chooses, is held out; where
there is no tokenizer yet, it learns from the captions of the first window; captions become ids as they are needed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidalle.bart.train import Pairs, Prepared, evaluation_losses, make_config
from minidalle.data.token_shards import TokenShards, read_batches
from minidalle.files import write_json
from minidalle.text import Tokenizer
from minidalle.training.placement import Placement
from minidalle.training.processes import leads

HELD_OUT = 4096  # pictures of the held-out shard that evaluations look at, at most
LISTING = "shards.json"  # in the run folder: what the shards were when the run began


def prepare_stream(
    recipe: Mapping[str, Any],
    data_settings: Mapping[str, Any],
    batch_size: int,
    run_dir: Path,
    *,
    resume: bool = True,
    placement: Placement | None = None,
) -> Prepared:
    """Shards, tokenizer and batches of a recipe; each process makes its own rows of every batch.

    Raises:
        ValueError: the source is not a folder of at least two shards; shards are damaged, of several kinds, or not those
            with which the run began. FileNotFoundError: there are none.
    """
    source, window, seed = data_settings["source"], data_settings["window"], recipe["seed"]
    if source == "emoji":
        raise ValueError('[data] reading = "grain" reads token shards; the emoji are read with reading = "memory"')
    shards = TokenShards(source, keep=window)
    check_listing(shards, run_dir / LISTING, resume)
    held_out = int(np.random.default_rng([seed, 4]).integers(len(shards.paths)))
    parts = 1 if placement is None else placement.row_shares()
    read = read_batches(
        shards,
        batch_size,
        seed,
        window=window,
        leave_out=[held_out],
        parts=parts,
        mine=[0] if placement is None else placement.local_rows(parts),
    )

    first_window = [shard for shard in range(len(shards.paths)) if shard != held_out][:window]
    captions = (caption for shard in first_window for caption in shards.load(shard)[1])
    tokenizer = Tokenizer.load_or_train(data_settings["tokenizer"], captions, data_settings["vocab_size"])
    config = make_config(recipe.get("model", {}), tokenizer, shards.n_embed, shards.code_length)

    def encode(captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return tokenizer.encode(captions, config.max_text_length, warn=False)  # a warning a batch would be a flood

    codes, captions = (values[:HELD_OUT] for values in shards.load(held_out))
    valid = Pairs(*encode(captions), codes[:, None], *encode([""]))

    def batches(step: int) -> dict[str, np.ndarray]:
        batch = read(step)
        text_ids, text_mask = encode(batch["captions"])
        return {"text_ids": text_ids, "text_mask": text_mask, "codes": batch["codes"]}

    return Prepared(config, valid, lambda model: evaluation_losses(model, valid), batches=batches)


def check_listing(shards: TokenShards, path: Path, resume: bool) -> None:
    """Compare the shards with those that `path` lists, where a run goes on; note them there, where one begins.

    Raises:
        ValueError: they are others, so the same steps would have other batches.
    """
    if not (resume and path.exists()):
        if leads():
            write_json(path, shards.listing)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(
        name for name in before.keys() | shards.listing.keys() if before.get(name) != shards.listing.get(name)
    )
    if changed:
        name = changed[0]
        was, now = (
            "not there" if found is None else f"{found[0]} rows in {found[1]} bytes"
            for found in (before.get(name), shards.listing.get(name))
        )
        raise ValueError(
            f"{len(changed)} shards are not those with which the run in {path.parent} began; the first is {name}: "
            f"it was {was} and is {now}. Put them back, or train anew (--fresh, resume=False)"
        )
