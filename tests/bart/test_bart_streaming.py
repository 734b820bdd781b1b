"""A recipe that reads its shards through Grain: as good as arrays, killed or not, and it says what is wrong."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_bart_train import MODEL, QUICK, records

from minidalle.bart.streaming import prepare_stream
from minidalle.bart.train import DATA, train
from minidalle.data import token_shards
from minidalle.data.encoded import Encoded
from minidalle.text import Tokenizer

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def write_shards(folder):
    """Five shards of eight pictures."""
    for shard in range(5):
        codes = np.random.default_rng(shard).integers(0, 2, (8, 1)).repeat(9, axis=1).astype(np.int32)
        captions = ["black" if row[0] else "white" for row in codes]
        Encoded(codes, captions, captions, 7).save(folder / f"{shard:05}.parquet")
    return folder


def recipe(folder, train=(), **data):
    return {
        "kind": "bart",
        "name": "toy",
        "seed": 1,
        "data": {
            "source": str(folder / "codes"),
            "reading": "grain",
            "window": 1,
            "tokenizer": str(folder / "tokenizer.json"),
            "vocab_size": 270,
        }
        | data,
        "model": MODEL,
        "train": QUICK | {"steps": 6, "evaluate_every": 6, "log_every": 1, "save_every": 2} | dict(train),
        "output": {"path": str(folder / "bart")},
    }


def test_a_run_that_a_broken_shard_ended_goes_on_as_the_run_left_alone(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "codes")
    read = []
    original = token_shards.read_token_shard
    monkeypatch.setattr(token_shards, "read_token_shard", lambda path: read.append(path) or original(path))
    model = train(recipe(tmp_path), run_dir=tmp_path / "whole", progress=False)
    whole = records(tmp_path / "whole")
    assert (model.config.image_vocab_size, model.config.image_length) == (7, 9)
    assert Tokenizer.load(tmp_path / "tokenizer.json").vocab_size > 261
    assert {"valid_loss", "blank_loss"} == set(json.loads((tmp_path / "whole" / "metrics.json").read_text()))
    losses = [record["loss"] for record in whole if "loss" in record]
    assert len(losses) == 6

    broken = max(set(read), key=read.index)  # the shard that is needed last, read only when it is needed
    good = broken.read_bytes()
    broken.write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])
    with pytest.raises(ValueError, match=f"{broken.name} does not hold codes"):
        train(recipe(tmp_path), run_dir=tmp_path / "killed", progress=False)
    assert 0 < len(records(tmp_path / "killed")) < len(whole)
    broken.write_bytes(good)
    train(recipe(tmp_path), run_dir=tmp_path / "killed", progress=False)
    assert records(tmp_path / "killed") == whole

    # Other shards would be other batches for the same steps.
    Encoded.load(sorted(folder.glob("*.parquet"))[:2]).save(folder / "00005.parquet")
    with pytest.raises(ValueError, match=r"1 shards .* first is 00005\.parquet: it was not there and is 16 rows"):
        train(recipe(tmp_path), run_dir=tmp_path / "killed", progress=False)


@pytest.mark.parametrize("mine", [[0, 1, 2, 3], [1], [2, 3]])
def test_batches_are_the_rows_of_the_shards_and_a_process_brings_its_own(tmp_path, mine):
    folder = tmp_path / "codes"
    for shard in range(3):
        codes = np.random.default_rng(shard).integers(0, 7, (10, 9)).astype(np.int32)
        captions = [f"picture {shard} {row}" for row in range(10)]
        Encoded(codes, captions, captions, 7).save(folder / f"{shard:05}.parquet")
    whole = Encoded.load(folder)
    settings = DATA | recipe(tmp_path)["data"] | {"window": 2}
    placement = SimpleNamespace(row_shares=lambda: 4, local_rows=lambda count: np.array(mine))
    alone, shared = (
        prepare_stream(recipe(tmp_path), settings, 8, tmp_path / "run", placement=given) for given in (None, placement)
    )
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    text_ids, text_mask = tokenizer.encode(whole.captions, MODEL["max_text_length"])
    row_of = {codes.tobytes(): row for row, codes in enumerate(whole.codes)}
    held_out = [row_of[codes.tobytes()] for codes in alone.pairs.codes[:, 0]]
    np.testing.assert_array_equal(alone.pairs.text_ids, text_ids[held_out])
    seen = []
    for step in range(5):  # two epochs of 20 rows
        batch = alone.batches(step)
        rows = [row_of[codes.tobytes()] for codes in batch["codes"]]
        np.testing.assert_array_equal(batch["text_ids"], text_ids[rows])
        np.testing.assert_array_equal(batch["text_mask"], text_mask[rows])
        for name, values in shared.batches(step).items():
            np.testing.assert_array_equal(values, batch[name].reshape(4, 2, -1)[mine].reshape(-1, values.shape[1]))
        seen += rows
    assert sorted(seen) == sorted(2 * [row for row in range(30) if row not in held_out])


def test_recipes_that_cannot_be_followed_are_refused(tmp_path, monkeypatch):
    write_shards(tmp_path / "codes")
    for data, message in (
        ({"reading": "grains"}, "reading is 'grains'; expected 'memory' or 'grain'"),
        ({"source": "emoji"}, "the emoji are read with"),
        ({"source": str(tmp_path / "codes" / "00001.parquet")}, "none to train on"),
    ):
        with pytest.raises(ValueError, match=message):
            train(recipe(tmp_path, **data), run_dir=tmp_path / message[:6], progress=False)
    for name in ("minidalle.data.token_shards", "minidalle.bart.streaming"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match="pip install grain"):
        train(recipe(tmp_path), run_dir=tmp_path / "run", progress=False)
