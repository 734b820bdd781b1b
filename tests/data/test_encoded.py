"""Shards of codes: what is written is read again, by us and by pyarrow alone, and so is what the original kept."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minidalle.data.encoded import Encoded, count_pictures, find_token_shards


def some(count: int, seed: int = 0, length: int = 6, n_embed: int = 32) -> Encoded:
    codes = np.random.default_rng(seed).integers(0, n_embed, (count, length)).astype(np.int32)
    return Encoded(
        codes, [f"käse {row}" for row in range(count)], [f"{seed}/{row}.png" for row in range(count)], n_embed
    )


def assert_equal(one: Encoded, other: Encoded) -> None:
    np.testing.assert_array_equal(one.codes, other.codes)
    assert one.codes.dtype == other.codes.dtype == np.int32
    assert (one.captions, one.sources, one.n_embed) == (other.captions, other.sources, other.n_embed)


def test_a_shard_is_read_as_it_was_written_and_its_bytes_are_the_same_each_time(tmp_path):
    kept = some(5)
    for name in ("a", "b"):
        kept.save(tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert_equal(Encoded.load(tmp_path / "a.parquet"), kept)
    assert count_pictures(tmp_path / "a.parquet") == 5


def test_others_read_it_without_us(tmp_path):
    kept = some(3)
    table = pq.read_table(kept.save(tmp_path / "a.parquet"))
    assert table.schema.types == [pa.string(), pa.list_(pa.int32()), pa.string()]
    assert table.column("codes").to_pylist() == kept.codes.tolist()
    assert table.column("caption").to_pylist() == kept.captions


def test_a_folder_is_its_shards_in_order_and_empty_ones_do_not_matter(tmp_path):
    parts = [some(2, 1), some(0, 2), some(3, 3)]
    for place, part in enumerate(parts):
        part.save(tmp_path / f"{place:05}.parquet")
    whole = Encoded.load(tmp_path)
    assert whole.captions == parts[0].captions + parts[2].captions
    assert_equal(Encoded.load(str(tmp_path / "0000[02].parquet")), whole)
    assert_equal(Encoded.load([tmp_path / "00000.parquet", tmp_path / "00002.parquet"]), whole)
    assert [path.name for path in find_token_shards(tmp_path)] == [f"0000{place}.parquet" for place in range(3)]


def test_a_shard_without_pictures_keeps_its_code_length(tmp_path):
    assert Encoded.load(some(0).save(tmp_path / "a.parquet")).codes.shape == (0, 6)


def test_the_originals_columns_are_read_and_its_codebook_assumed(tmp_path):
    codes = np.random.default_rng(0).integers(0, 16384, (4, 256))
    captions = ["a cat", "", None, "ein Hund"]
    # as its notebook wrote them: pandas' to_parquet of lists of Python's integers, 64 bits each
    pq.write_table(pa.table({"caption": captions, "encoding": codes.tolist()}), tmp_path / "000.parquet")
    found = Encoded.load(tmp_path)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.captions == ["a cat", "", "", "ein Hund"] and found.n_embed == 16384
    assert found.sources == [f"000.parquet/{row}" for row in range(4)]
    assert Encoded.load(tmp_path, n_embed=16415).n_embed == 16415


def test_codes_of_minidalle_0_1_are_still_read(tmp_path):
    kept = some(4)
    np.savez_compressed(
        tmp_path / "codes.npz", codes=kept.codes, captions=np.array(kept.captions), sources=np.array(kept.sources),
        n_embed=kept.n_embed,
    )  # fmt: skip
    assert_equal(Encoded.load(tmp_path / "codes.npz"), kept)
    assert_equal(Encoded.load(tmp_path), kept)


def test_file_names_that_are_no_text_can_be_kept(tmp_path):
    kept = Encoded(np.zeros((1, 4), np.int32), ["a cat"], [b"caf\xe9.png".decode("utf-8", "surrogateescape")], 8)
    assert Encoded.load(kept.save(tmp_path / "a.parquet")).sources == ["caf?.png"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"codes": [[1, 2], [3]], "caption": ["a", "b"]}, "rows of 2 lengths"),
        ({"codes": [[1, 2], None], "caption": ["a", "b"]}, "rows of 2 lengths"),
        ({"codes": [[1, None], [3, 4]], "caption": ["a", "b"]}, "as many codes"),
        ({"codes": [[1, 20000]], "caption": ["a"]}, r"in \[0, 16384\)"),
        ({"tokens": [[1]], "caption": ["a"]}, "columns tokens, caption; expected one of codes"),
        ({"codes": [1, 2], "caption": ["a", "b"]}, "lists"),
    ],
)
def test_tables_that_hold_no_codes_are_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        Encoded.load(tmp_path / "a.parquet")


def test_what_is_missing_damaged_or_mixed_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="minidalle encode"):
        Encoded.load(tmp_path)
    path = some(3).save(tmp_path / "00000.parquet")
    some(3, length=7).save(tmp_path / "00001.parquet")
    with pytest.raises(ValueError, match="shards differ"):
        Encoded.load(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="00000.parquet does not hold codes"):
        Encoded.load(path)
    (tmp_path / "codes.npz").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="does not hold codes"):
        Encoded.load(tmp_path / "codes.npz")
