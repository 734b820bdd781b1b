"""Shards larger than memory: the batch of a step is a function of the step, and few shards are read for it."""

import numpy as np
import pytest

from minidalle.data import token_shards
from minidalle.data.encoded import Encoded
from minidalle.data.token_shards import TokenShards, read_batches

SIZES = (5, 1, 8, 0, 7, 3, 6)  # rows of the shards: 30


def write(folder, sizes=SIZES, length=6, n_embed=100):
    """Row r of all has caption "r" and codes that begin with r."""
    first = 0
    for place, size in enumerate(sizes):
        codes = np.random.default_rng(place).integers(0, n_embed, (size, length)).astype(np.int32)
        codes[:, 0] = np.arange(first, first + size)
        names = [str(row) for row in range(first, first + size)]
        Encoded(codes, names, names, n_embed).save(folder / f"{place:05}.parquet")
        first += size
    return folder


def rows_of(batch):
    assert [int(caption) for caption in batch["captions"]] == batch["codes"][:, 0].tolist()  # pairs stay pairs
    return batch["codes"][:, 0].tolist()


def test_any_row_is_what_reading_everything_gives(tmp_path):
    whole, shards = Encoded.load(write(tmp_path)), TokenShards(tmp_path, keep=2)
    assert len(shards) == len(whole.codes) == 30
    assert (shards.code_length, shards.n_embed) == (6, 100)
    for row in (0, 29, 5, 6, 13, 14, 4, 20, 0):
        assert shards[row]["caption"] == whole.captions[row]
        np.testing.assert_array_equal(shards[row]["codes"], whole.codes[row])


@pytest.mark.parametrize("window", [1, 2, 16])
def test_every_row_comes_once_an_epoch_each_epoch_in_another_order(tmp_path, window):
    batches = read_batches(TokenShards(write(tmp_path), keep=window), 4, seed=0, window=window)
    epochs = np.concatenate([rows_of(batches(step)) for step in range(15)]).reshape(2, 30)  # batch 7 is of both
    assert [sorted(epoch) for epoch in epochs.tolist()] == [list(range(30))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()
    assert epochs[0].tolist() != list(range(30))
    others = read_batches(TokenShards(tmp_path), 4, seed=1, window=window)
    assert rows_of(others(0)) + rows_of(others(1)) != epochs[0][:8].tolist()


def test_a_window_of_all_shards_mixes_them_and_shards_of_a_window_of_one_stay_together(tmp_path):
    shard_of = np.repeat(np.arange(len(SIZES)), SIZES)
    changes = {}
    for window in (1, 16):
        batches = read_batches(TokenShards(write(tmp_path)), 30, seed=0, window=window)
        changes[window] = np.count_nonzero(np.diff(shard_of[rows_of(batches(0))]))
    assert changes[1] == 5  # of the six shards that have rows
    assert changes[16] > 12


def test_a_batch_depends_on_seed_and_step_alone(tmp_path):
    whole = read_batches(TokenShards(write(tmp_path), keep=2), 8, seed=3, window=2)
    forwards = [rows_of(whole(step)) for step in range(12)]
    for step in (11, 0, 3, 4, 7):  # as after a resume at any of these, in a process that has read nothing
        resumed = read_batches(TokenShards(tmp_path, keep=2), 8, seed=3, window=2)
        assert rows_of(resumed(step)) == forwards[step]
        assert rows_of(whole(step)) == forwards[step]


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_of_processes_put_together_are_the_batch_of_one(tmp_path, parts):
    shards = TokenShards(write(tmp_path))
    whole = read_batches(shards, 8, seed=0, window=2)
    alone = [read_batches(shards, 8, seed=0, window=2, parts=parts, mine=[part]) for part in range(parts)]
    last_two = read_batches(shards, 8, seed=0, window=2, parts=parts, mine=[parts - 2, parts - 1])
    for step in range(5):
        assert sum((rows_of(batches(step)) for batches in alone), []) == rows_of(whole(step))
        assert rows_of(last_two(step)) == rows_of(whole(step))[-16 // parts :]


def test_shards_held_out_are_in_no_batch(tmp_path):
    batches = read_batches(TokenShards(write(tmp_path)), 11, seed=0, window=2, leave_out=[2])  # rows 6 to 13
    assert sorted(rows_of(batches(0)) + rows_of(batches(1))) == [*range(6), *range(14, 30)]


def test_an_epoch_reads_each_shard_about_once_and_keeps_no_more_than_it_may(tmp_path, monkeypatch):
    write(tmp_path, [4] * 12)
    read = []
    original = token_shards.read_token_shard
    monkeypatch.setattr(token_shards, "read_token_shard", lambda path: read.append(path.name) or original(path))
    shards = TokenShards(tmp_path, keep=3)
    batches = read_batches(shards, 4, seed=0, window=3)
    read.clear()
    for step in range(12):
        batches(step)
        assert len(shards._kept) <= 3
    assert sorted(read) == [path.name for path in shards.paths]
    for step in range(12, 48):
        batches(step)
    assert len(read) <= 4 * 12 * 1.25  # three more epochs; a shard kept from the last may be read again


def test_broken_changed_and_foreign_shards_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="minidalle encode"):
        TokenShards(tmp_path)
    path = tmp_path / "00002.parquet"
    good = write(tmp_path).joinpath(path.name).read_bytes()

    path.write_bytes(good[: len(good) // 2])  # known at once: the end of the file is missing
    with pytest.raises(ValueError, match=r"00002\.parquet does not hold codes"):
        TokenShards(tmp_path)
    path.write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])  # one bit, known when it is read
    with pytest.raises(ValueError, match=r"00002\.parquet does not hold codes"):
        TokenShards(tmp_path)[6]

    path.write_bytes(good)
    shards = TokenShards(tmp_path)
    Encoded.load(tmp_path / "00004.parquet").save(path)
    with pytest.raises(
        ValueError, match=r"00002\.parquet has .* \(7, 6, 100\); expected \(8, 6, 100\): it was changed"
    ):
        shards[6]
    write(tmp_path, [3] * 7)
    Encoded(np.zeros((3, 9), np.int32), ["a"] * 3, ["a"] * 3, 100).save(path)
    with pytest.raises(ValueError, match=r"shards differ .*\(6, 100\), \(9, 100\)"):
        TokenShards(tmp_path)


def test_what_cannot_be_is_refused(tmp_path):
    shards = TokenShards(write(tmp_path, [3]))
    with pytest.raises(ValueError, match="batch_size is 8; expected a multiple of the 3 parts"):
        read_batches(shards, 8, 0, parts=3)
    with pytest.raises(ValueError, match="window is 0"):
        read_batches(shards, 8, 0, window=0)
    with pytest.raises(ValueError, match="none to train on"):
        read_batches(shards, 8, 0, leave_out=[0])
    with pytest.raises(ValueError, match="have no rows"):
        TokenShards(write(tmp_path, [0]))
