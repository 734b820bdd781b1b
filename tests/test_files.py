"""Whatever the library writes is there whole or not at all."""

import json
import os
import stat

import numpy as np
import pytest
import torch

from minidalle import files
from minidalle.clip.rank import _write_cache
from minidalle.data.encoded import Encoded
from minidalle.data.pictures import save_grid
from minidalle.hub.files import write_json as write_sorted_json
from minidalle.hub.files import write_msgpack, write_torch
from minidalle.text import Tokenizer
from minidalle.training import log
from minidalle.training.export import save_arrays

VECTOR = np.arange(3, dtype=np.float32)
WRITERS = {
    "text.txt": lambda path: files.write_text(path, "a cat"),
    "values.json": lambda path: files.write_json(path, {"b": 1, "a": 2}),
    "config.json": lambda path: write_sorted_json(path, {"b": 1, "a": 2}),
    "sheet.png": lambda path: save_grid(path, np.zeros((2, 4, 4, 3), np.uint8)),
    "codes.parquet": lambda path: Encoded(np.zeros((1, 4), np.int32), ["a cat"], ["cat.png"], 8).save(path),
    "features.npz": lambda path: _write_cache(path, "weights", {"cat.png": VECTOR}),
    "tokenizer.json": lambda path: Tokenizer.train(["a cat"], 300, min_frequency=1).save(path),
    "log.jsonl": lambda path: log.truncate(path, 1),
    "flax_model.msgpack": lambda path: write_msgpack(path, {"layer/kernel": VECTOR}),
    "weights.ckpt": lambda path: write_torch(path, {"kernel": torch.from_numpy(VECTOR)}),
    "model.safetensors": lambda path: save_arrays(path.parent, "vqgan", {}, {"kernel": VECTOR}),
}
every_writer = pytest.mark.parametrize("name", WRITERS)


@every_writer
def test_missing_folders_are_made_and_nothing_else_is_left_there(tmp_path, name):
    path = tmp_path / "new" / "folder" / name
    WRITERS[name](path)
    beside = {"config.json"} if name == "model.safetensors" else set()
    assert {file.name for file in path.parent.iterdir()} == {name} | beside


@every_writer
def test_what_is_written_can_be_read_by_others(tmp_path, name):
    before = os.umask(0o022)  # as almost every machine has it
    try:
        WRITERS[name](tmp_path / name)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644


@every_writer
@pytest.mark.parametrize("trouble", [OSError("disk full"), KeyboardInterrupt()], ids=["an error", "Ctrl-C"])
def test_a_write_cut_short_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, name, trouble):
    path = tmp_path / name
    path.write_text('{"step": 1}\n')

    def cut_short(*_):
        raise trouble

    monkeypatch.setattr(files.os, "replace", cut_short)
    with pytest.raises(type(trouble)):
        WRITERS[name](path)
    assert path.read_text() == '{"step": 1}\n' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("trouble", [OSError, KeyboardInterrupt])
def test_half_of_a_file_never_takes_its_place(tmp_path, trouble):
    path = tmp_path / "weights.pt"
    with pytest.raises(trouble), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise trouble
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_at_once_the_last_to_end_wins(tmp_path):
    path = tmp_path / "weights.pt"
    with files.replacing(path) as one:
        one.write_text("one")
        with files.replacing(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


def test_keys_of_json_keep_their_order_unless_sorted(tmp_path):
    values = {"b": {"d": 1, "c": 2}, "a": "é"}
    for sort_keys, expected in ((False, ["b", "a"]), (True, ["a", "b"])):
        files.write_json(tmp_path / "values.json", values, sort_keys=sort_keys)
        found = json.loads((tmp_path / "values.json").read_text(encoding="utf-8"))
        assert found == values and list(found) == expected
