"""The shipped emoji: complete, unchanged, drawn by the script beside them, and split so that nothing leaks."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from minidalle.data import emoji, emoji_build

SHA256 = {
    "sheet.avif": "686e12939a98a2317fa554581583dc60d3080235546d8c752fa6cc86addac327",
    "names.tsv": "05970498400280fe1525ebdfb2673f4dcf40f2246299dd65a173841b20e4c8d0",
}


@pytest.fixture(scope="module")
def data():
    return emoji.load()


@pytest.mark.parametrize("name", SHA256)
def test_the_shipped_files_are_the_ones_that_were_checked(name):
    assert hashlib.sha256((emoji.FOLDER / name).read_bytes()).hexdigest() == SHA256[name]


def test_every_fully_qualified_emoji_of_unicode_15_is_there_once(data):
    assert len(data) == len(set(data.captions)) == len(set(data.sequences)) == 3655
    assert data.images.shape == (3655, 64, 64, 3) and data.images.dtype == np.uint8
    assert data.captions[data.sequences.index("👩🏽‍🚒")] == "woman firefighter: medium skin tone"
    assert set(data.groups) >= {"Smileys & Emotion", "People & Body", "Flags"}


def test_pictures_are_drawn_in_colour_on_white(data):
    corners = data.images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners > 235).all(axis=(1, 2)).mean() > 0.85  # squares such as flags and keycaps fill theirs
    assert (data.images.reshape(len(data), -1).std(axis=1) > 8).all(), "an empty picture"
    heart = data.images[data.captions.index("red heart")][32, 32].astype(int)
    assert heart[0] > 180 and heart[1] < 110 and heart[2] < 110


def test_the_script_draws_what_is_shipped(data):
    if not emoji_build.FONT.exists() or not emoji_build.EMOJI_TEST.exists():
        pytest.skip("needs the Debian packages fonts-noto-color-emoji and unicode-data")
    from PIL import ImageFont

    rows = emoji_build.read_sequences(emoji_build.EMOJI_TEST)
    names = "".join("\t".join(row) + "\n" for row in rows)
    if not emoji_build.EMOJI_TEST.read_text(encoding="utf8").startswith("# emoji-test.txt\n# Date: 2022"):
        pytest.skip("another version of Unicode is installed")
    assert names == (emoji.FOLDER / "names.tsv").read_text(encoding="utf8")
    font = ImageFont.truetype(str(emoji_build.FONT), emoji_build.STRIKE, layout_engine=ImageFont.Layout.RAQM)
    for index in range(0, len(data), 97):
        drawn = np.asarray(emoji_build.draw(data.sequences[index], font, emoji.SIZE)).astype(float)
        assert np.abs(drawn - data.images[index]).mean() < 6, data.captions[index]


@pytest.mark.parametrize(
    ("caption", "role", "tones", "hair"),
    [
        ("grinning face", "grinning face", (), ""),
        ("woman firefighter: medium skin tone", "woman firefighter", ("medium",), ""),
        ("woman: dark skin tone, red hair", "woman", ("dark",), "red hair"),
        ("woman: red hair", "woman", (), "red hair"),
        (
            "kiss: woman, man, light skin tone, dark skin tone",
            "kiss: woman, man",
            ("light", "dark"),
            "",
        ),
        ("flag: Chad", "flag: Chad", (), ""),
    ],
)
def test_captions_are_taken_apart(caption, role, tones, hair):
    assert emoji.parse(caption) == emoji.Parts(role, tones, hair)


def test_the_splits_are_disjoint_and_complete(data):
    train, valid, test = (set(data.split(name).tolist()) for name in ("train", "valid", "test"))
    assert not train & valid and not train & test and not valid & test
    assert train | valid | test == set(data.split("all").tolist())
    assert len(test) >= 200


def test_held_out_combinations_are_new_but_their_parts_are_not(data):
    """The role is seen with at least three other tones, the tones and the hair are seen on other roles."""
    train = [data.parts[index] for index in data.split("train")]
    combinations = set(train)
    figures = Counter((parts.role, parts.hair) for parts in train if parts.tones)
    tones = Counter(parts.tones for parts in train)
    for index in np.concatenate([data.split("valid"), data.split("test")]):
        parts = data.parts[index]
        assert parts not in combinations
        assert figures[parts.role, parts.hair] >= 3, data.captions[index]
        assert tones[parts.tones] >= 8, data.captions[index]


def test_no_held_out_picture_stands_in_training_under_another_name(data):
    held_out = np.concatenate([data.split("valid"), data.split("test")])
    seen = {data.images[index].tobytes() for index in data.split("train")}
    assert not any(data.images[index].tobytes() in seen for index in held_out)


def test_the_split_never_changes(data):
    assert (
        hashlib.sha256(data.split("test").astype("<i8").tobytes()).hexdigest()
        == "030dac2937c2aa68f8a239e259bce24d4a915ee8f1923ad8acb2093d3daf64fc"
    )


def test_an_unknown_split_is_refused(data):
    with pytest.raises(ValueError, match="choose one of train, valid, test, all"):
        data.split("validation")


def test_sides_are_recognised():
    assert emoji.faces_left_or_right("left arrow") and emoji.faces_left_or_right("clockwise vertical arrows")
    assert emoji.faces_left_or_right("rightwards hand") and not emoji.faces_left_or_right("bright button")
