"""Folders, captions files and shards give the same pairs; everything wrong with them is named and left out."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from minidalle.data.pairs import load_pairs

COLORS = {"red": (220, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 220), "gray": (90, 90, 90), "pink": (250, 120, 180)}


def picture(color: str, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 30), COLORS[color]).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five pictures with a `.txt` each, one of them in a folder below."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    for color in COLORS:
        stem = place / ("more" if color == "pink" else ".") / color
        stem.with_suffix(".png").write_bytes(picture(color))
        stem.with_suffix(".txt").write_text(f"a {color} field\n")
    return place


def captions_of(pairs) -> list[str]:
    return [pair.caption for pair in pairs]


def found(pairs) -> dict[str, list[str]]:
    """Runs through the pairs and gives the sources of the problems of each kind."""
    list(pairs)
    kinds: dict[str, list[str]] = {}
    for problem in pairs.report.problems:
        kinds.setdefault(problem.kind, []).append(problem.source)
    return kinds


def assert_right(pairs, colors=COLORS, size=16):
    """Each pair's picture has the colour that its caption names."""
    items = list(pairs)
    assert sorted(caption for _, caption, _ in items) == sorted(f"a {color} field" for color in colors)
    for image, caption, _ in items:
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert (image == COLORS[caption.split()[1]]).all()
    assert pairs.report.read == len(items)


def without_texts(folder: Path) -> Path:
    for path in folder.rglob("*.txt"):
        path.unlink()
    return folder


def rows() -> list[dict]:
    names = [f"more/{color}.png" if color == "pink" else f"{color}.png" for color in COLORS]
    return [{"file_name": name, "caption": f"a {color} field"} for name, color in zip(names, COLORS, strict=True)]


def write_shard(path: Path, samples: list[dict]) -> Path:
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def shard_samples() -> list[dict]:
    return [{"__key__": color, "png": picture(color), "txt": f"a {color} field"} for color in COLORS]


# The ways in


def test_a_text_file_beside_each_picture(folder):
    pairs = load_pairs(folder, size=16)
    assert_right(pairs)
    assert pairs.report.counts == {}
    assert [pair.source for pair in pairs] == ["blue.png", "gray.png", "green.png", "more/pink.png", "red.png"]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_a_table(folder, delimiter):
    lines = ["image|caption".replace("|", delimiter)]
    lines += [delimiter.join([row["file_name"], f'"{row["caption"]}"']) for row in rows()]
    (without_texts(folder) / "captions.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    assert_right(load_pairs(folder, size=16))
    assert_right(load_pairs(folder / "captions.csv", size=16))


def test_json_lines_json_and_coco(folder):
    without_texts(folder)
    file = folder / "captions.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows()))
    assert_right(load_pairs(folder, size=16))
    file.unlink()
    file = folder / "captions.json"
    file.write_text(json.dumps(rows()))
    assert_right(load_pairs(folder, size=16))
    images = [{"id": number, "file_name": row["file_name"]} for number, row in enumerate(rows())]
    annotations = [{"id": 7, "image_id": number, "caption": row["caption"]} for number, row in enumerate(rows())]
    file.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    assert_right(load_pairs(folder, size=16))


def test_a_captions_file_elsewhere(folder, tmp_path):
    file = tmp_path / "captions_val.json"
    file.write_text(json.dumps(rows()))
    assert_right(load_pairs(without_texts(folder), captions=file, size=16))


def test_several_captions_for_one_picture_are_several_pairs(folder):
    file = without_texts(folder) / "captions.jsonl"
    file.write_text(json.dumps({"file_name": "red.png", "caption": ["warm", "like a rose"]}))
    assert captions_of(load_pairs(file)) == ["warm", "like a rose"]


def test_shards_by_file_folder_list_and_brace_pattern(tmp_path):
    first = write_shard(tmp_path / "set-000.tar", shard_samples()[:3])
    second = write_shard(tmp_path / "set-001.tar", shard_samples()[3:])
    for path in (tmp_path, [first, second], str(tmp_path / "set-{000..001}.tar")):
        assert_right(load_pairs(path, size=16))
        assert_right(load_pairs(path, size=16, seed=1))
    assert_right(load_pairs(first, size=16), list(COLORS)[:3])


def test_a_compressed_shard_and_captions_in_json(tmp_path):
    samples = [
        {"__key__": color, "img.jpg": picture(color, "JPEG"), "json": {"caption": f"a {color} field"}}
        for color in COLORS
    ]
    write_shard(tmp_path / "set.tar.gz", samples)
    assert sorted(captions_of(load_pairs(tmp_path))) == sorted(f"a {color} field" for color in COLORS)


# Order


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_a_seed_gives_one_order_and_another_seed_another(folder, tmp_path, kind):
    if kind == "shards":
        folder = tmp_path / "shards"
        folder.mkdir()
        for number in range(4):
            samples = [{"__key__": f"{n}", "png": picture("red"), "txt": f"{number}-{n}"} for n in range(6)]
            write_shard(folder / f"{number}.tar", samples)
    in_order = captions_of(load_pairs(folder, size=8))
    pairs = load_pairs(folder, size=8, seed=3)
    shuffled = captions_of(pairs)
    assert sorted(shuffled) == sorted(in_order) and shuffled != in_order
    assert captions_of(pairs) == shuffled, "a second pass is the same"
    assert captions_of(load_pairs(folder, size=8, seed=3)) == shuffled
    assert any(captions_of(load_pairs(folder, size=8, seed=seed)) != shuffled for seed in range(4, 9))


def test_random_crops_follow_the_seed(tmp_path):
    stripes = np.random.default_rng(0).integers(0, 256, (16, 80, 3), dtype=np.uint8)
    Image.fromarray(stripes).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("stripes")
    crops = [next(iter(load_pairs(tmp_path, size=16, seed=seed, crop="random"))).image for seed in (1, 1, 2)]
    np.testing.assert_array_equal(crops[0], crops[1])
    assert (crops[0] != crops[2]).any()


def test_pictures_are_decoded_when_their_turn_comes(folder):
    stream = iter(load_pairs(folder, size=16))
    next(stream)
    (folder / "gray.png").unlink()
    assert next(stream).caption == "a green field"


# What can be wrong


def test_problems_of_a_folder_are_named_and_the_rest_is_read(folder):
    (folder / "blue.png").write_bytes(picture("blue")[:60])
    (folder / "red.txt").write_text(" \n\x00")
    (folder / "gray.txt").unlink()
    (folder / "story.txt").write_text("a picture that was lost")
    (folder / "void.jpg").write_bytes(b"")
    (folder / "void.txt").write_text("nothing")
    (folder / "latin.png").write_bytes(picture("red"))
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / ".hidden.png").write_bytes(b"")
    pairs = load_pairs(folder, size=16)
    assert found(pairs) == {
        "picture without caption": ["gray.png"],
        "unreadable caption": ["latin.txt"],
        "caption without picture": ["story.txt"],
        "unreadable": ["blue.png", "void.jpg"],
        "empty caption": ["red.png"],
    }
    assert_right(pairs, ["green", "pink"])
    assert pairs.report.dropped == 6
    assert str(pairs.report).startswith("2 pairs read, 6 left out (1 caption without picture, 1 empty caption")
    assert "unreadable: blue.png: " in str(pairs.report)


def test_problems_of_a_captions_file_are_named(folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(picture("red"))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    without_texts(folder)
    odd = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "gone.png", "nul\x00.png", "x" * 5000, "more", ""]
    lines = [json.dumps({"file_name": name, "caption": "a caption"}) for name in odd]
    lines += [
        '{"file_name": "red.png", "cap',
        "[1, 2]",
        '{"file_name": "red.png"}',
        '{"file_name": "red.png", "caption": 3}',
    ]
    lines += [json.dumps(row) for row in rows()[1:]] + [json.dumps(rows()[1])]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    pairs = load_pairs(folder, size=16)
    problems = found(pairs)
    assert problems.pop("outside the folder") == ["../secret.png", str(tmp_path / "secret.png"), "link.png"]
    assert problems.pop("missing picture") == ["gone.png", "nul\x00.png", "x" * 100, "more", ""]
    assert problems.pop("bad line") == [
        f"captions.jsonl {place}" for place in ("line 9", "item 10", "item 11", "item 12")
    ]
    assert problems.pop("picture without caption") == ["link.png", "red.png"]
    assert problems.pop("duplicate") == ["green.png"]
    assert not problems
    assert_right(pairs, list(COLORS)[1:])


def test_problems_of_a_table_are_named(folder):
    lines = ["file,caption", "red.png,a red field", "green.png,a green field, with a comma", "", "blue.png"]
    (without_texts(folder) / "captions.csv").write_text("\n".join(lines))
    assert found(load_pairs(folder))["bad line"] == ["captions.csv line 3", "captions.csv line 5"]


def test_problems_of_coco_captions_are_named(folder):
    content = {
        "images": [{"id": 1, "file_name": "red.png"}, {"id": 2}, "x"],
        "annotations": [
            {"image_id": 1, "caption": "a red field"},
            {"image_id": 5, "caption": "?"},
            {"image_id": 1},
            None,
        ],
    }
    (without_texts(folder) / "captions.json").write_text(json.dumps(content))
    pairs = load_pairs(folder, size=16)
    assert_right(pairs, ["red"])
    assert pairs.report.counts["bad line"] == 4 and pairs.report.counts["caption without picture"] == 1


def test_huge_pictures_are_left_out(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "PNG")
    (folder / "red.png").write_bytes(file.getvalue())
    pairs = load_pairs(folder, size=16)
    assert found(pairs) == {"too large": ["red.png"]}
    assert "MAX_IMAGE_PIXELS" in str(pairs.report)


def test_conversions_are_noted_but_cost_nothing(folder):
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(folder / "red.png")
    for strict in (False, True):
        pairs = load_pairs(folder, size=16, strict=strict)
        images = {pair.source: pair.image for pair in pairs}
        assert (images["red.png"] == 255).all()
        assert pairs.report.counts == {"converted": 1} and pairs.report.dropped == 0 and pairs.report.read == 5


def test_duplicates_are_pictures_with_the_same_caption_under_any_name(folder):
    (folder / "copy.png").write_bytes(picture("red"))
    (folder / "copy.txt").write_text("a red  field")
    (folder / "other.png").write_bytes(picture("red"))
    (folder / "other.txt").write_text("another caption")
    assert found(load_pairs(folder)) == {"duplicate": ["red.png"]}
    assert len(list(load_pairs(folder, keep_duplicates=True))) == 7


def test_problems_of_shards_are_named_and_the_next_shard_is_read(tmp_path):
    samples = [
        {"__key__": "no-text", "png": picture("red")},
        {"__key__": "no-picture", "txt": "alone"},
        {"__key__": "both", "png": picture("red"), "jpg": picture("red", "JPEG"), "txt": "twice"},
        {"__key__": "broken", "png": b"no", "txt": "broken"},
        {"__key__": "latin", "png": picture("red"), "txt": b"caf\xe9"},
        *shard_samples()[:2],
    ]
    damaged = write_shard(tmp_path / "a.tar", samples)
    with tarfile.open(damaged) as tar:
        middle = tar.getmember("green.txt").offset_data + 3
    damaged.write_bytes(damaged.read_bytes()[:middle])
    (tmp_path / "b.tar").write_bytes(b"this is no tar file" * 100)
    write_shard(tmp_path / "c.tar", shard_samples()[2:])
    pairs = load_pairs(tmp_path, size=16)
    problems = found(pairs)
    assert problems["damaged shard"] == ["a.tar", "b.tar"]
    assert problems["picture without caption"] == ["a.tar/no-text", "a.tar/latin", "a.tar/green"]
    assert problems["caption without picture"] == ["a.tar/no-picture"]
    assert problems["bad sample"] == ["a.tar/both"]
    assert problems["unreadable"] == ["a.tar/broken"]
    assert_right(pairs, ["red", "blue", "gray", "pink"])


def test_a_name_twice_in_a_shard_is_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("x.png", picture("red")), ("x.png", picture("blue")), ("x.txt", b"a red field")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    pairs = load_pairs(tmp_path, size=16)
    assert_right(pairs, ["red"])
    assert pairs.report.counts == {"bad sample": 1}


def test_strict_stops_at_the_first_problem_and_says_which(folder):
    (folder / "red.txt").write_text("")
    with pytest.raises(ValueError, match=r"empty caption: red.png.*strict=False"):
        list(load_pairs(folder, strict=True))
    (folder / "gray.txt").unlink()
    with pytest.raises(ValueError, match="picture without caption: gray.png"):
        load_pairs(folder, strict=True)


def test_each_pass_has_its_own_report(folder):
    (folder / "red.txt").write_text("")
    (folder / "gray.txt").unlink()
    pairs = load_pairs(folder)
    for _ in range(2):
        list(pairs)
        assert (pairs.report.read, pairs.report.dropped) == (3, 2)


def test_a_report_of_very_many_problems_stays_short(folder):
    lines = ["{"] * 3000 + [json.dumps(rows()[0])]
    (without_texts(folder) / "captions.jsonl").write_text("\n".join(lines))
    pairs = load_pairs(folder)
    list(pairs)
    assert pairs.report.counts["bad line"] == 3000 and len(pairs.report.problems) == 1000
    assert str(pairs.report).count("\n") == 21 and "and 2,984 more" in str(pairs.report)


def test_captions_are_one_tidy_line(folder):
    (folder / "red.txt").write_text("\ufeffa red\n\n  field\x07 \x00 at \u200d noon  ")
    assert captions_of(load_pairs(folder))[-1] == "a red field at \u200d noon"
    (folder / "red.txt").write_text("long " * 2000)
    assert len(captions_of(load_pairs(folder))[-1]) == 9_999


def test_paths_that_cannot_be_are_refused(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="nothing at"):
        load_pairs(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="no shard at pipe:"):
        load_pairs("pipe:cat /etc/passwd .tar")
    with pytest.raises(FileNotFoundError, match=r"no shard at .*b-01.tar"):
        write_shard(tmp_path / "b-00.tar", shard_samples())
        load_pairs(str(tmp_path / "b-{00..01}.tar"))
    with pytest.raises(FileNotFoundError, match="no captions file"):
        load_pairs(folder, captions=tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="list of shards is empty"):
        load_pairs([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        load_pairs(tmp_path / "empty")
    with pytest.raises(ValueError, match="neither a captions file"):
        load_pairs(folder / "red.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.csv", b"a,b\n1,2", "picture column"),
        ("captions.csv", b"", "picture column"),
        ("captions.csv", b"file,caption\nred.png,caf\xe9", "not UTF-8"),
        ("captions.json", b"{", "not valid JSON"),
        ("captions.json", b"[" * 100_000, "not valid JSON"),
        ("captions.json", b'{"a": 1}', "neither a list of objects nor COCO"),
    ],
)
def test_captions_files_that_make_no_sense_are_refused(folder, name, content, message):
    (without_texts(folder) / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_pairs(folder)


def test_several_captions_files_need_a_choice(folder):
    for name in ("train.csv", "valid.csv"):
        (folder / name).write_text("file,caption\nred.png,a red field")
    with pytest.raises(ValueError, match=r"train.csv, valid.csv.*captions="):
        load_pairs(folder)
    assert captions_of(load_pairs(folder, captions=folder / "train.csv")) == ["a red field"]


@pytest.mark.parametrize("arguments", [{"size": 0}, {"buffer": 0}, {"crop": "left"}, {"crop": "random"}])
def test_arguments_that_make_no_sense_are_refused(folder, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        load_pairs(folder, **arguments)
