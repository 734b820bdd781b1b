"""Captions are normalised as the original `TextNormalizer` did, recorded from dalle-mini 0.1.5."""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from minidalle.text import normalize
from minidalle.text.normalizer import read_words, split_words

for library in ("ftfy", "emoji", "unidecode"):
    pytest.importorskip(library, reason="normalize needs the extra libraries of the original's text processing")

FIXTURE = Path(__file__).parents[1] / "fixtures" / "text_normalizer"
RECORDED = json.loads((FIXTURE / "text_normalizer.json").read_text())
FUZZ = json.loads((FIXTURE / "fuzz.json").read_text())
WORDS = read_words(FIXTURE / "word_frequency.txt")


@pytest.mark.parametrize("item", RECORDED["items"], ids=lambda item: item["text"][:30])
def test_a_caption_becomes_what_the_original_makes_of_it(item):
    assert normalize(item["text"], words=WORDS) == item["normalized"]


@pytest.mark.parametrize("item", FUZZ, ids=lambda item: ascii(item["caption"])[:30])
def test_pieces_thrown_together_become_what_the_original_makes_of_them(item):
    """Recorded from dalle-mini 0.1.5 with ftfy 6.3.1, emoji 2.16.0 and Unidecode 1.4.0; of 5,500 such captions these are kept."""
    assert normalize(item["caption"], words=WORDS) == item["normalized"]


def test_the_list_of_words_is_read_for_hashtags_alone():
    def read():
        raise AssertionError("read")

    assert normalize("no hashtag", words=read) == " no hashtag"
    with pytest.raises(AssertionError, match="read"):
        normalize("\u2592sunset", words=read)  # a shaded block, which Unidecode writes as "#"


@pytest.mark.parametrize("item", RECORDED["hashtag_processor"], ids=lambda item: item["word"])
def test_run_together_words_are_split_as_the_original_splits_them(item):
    assert split_words(item["word"], WORDS) == item["split"]


def test_without_a_word_list_hashtags_stay_in_one_piece():
    assert normalize("#SunsetBeach at 5") == " sunsetbeach at 5"


def test_hidden_people_are_named():
    assert normalize("<PERSON> reads") == " a person reads"
    assert normalize("<person>, <person> and <person> dance with <person>") == " people dance with a person"


def test_a_generator_names_people_as_often_as_the_original():
    chance = random.Random(0)
    names = Counter(normalize("<person>", random=chance).strip() for _ in range(1000))
    assert set(names) == {"a person", "someone", "somebody"}
    assert names["a person"] == pytest.approx(679, abs=60) and names["someone"] == pytest.approx(292, abs=60)


@pytest.mark.parametrize(
    "part", ["a", " ", "<", ",", '" ', "[1] ", "a.", "1,000", "'s", "<person> ", "#a", "&amp;", "-a"]
)
def test_ten_thousand_characters_take_no_time(part):
    start = time.process_time()
    assert normalize(part * (10_000 // len(part)), words=WORDS).startswith(" ")
    assert time.process_time() - start < 2


def test_one_enormous_hashtag_is_still_split():
    assert normalize("#" + "sunset" * 1000, words=WORDS) == " " + " ".join(["sunset"] * 1000)


def test_control_characters_and_broken_unicode_do_not_stop_it():
    assert normalize("a\x00 red\x07 heart") == " a red heart"
    assert normalize("a \ud800 heart") == " a heart"


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ImportError, match=r"needs the library ftfy; install"):
        normalize("a heart")


def test_what_is_no_caption_is_refused(tmp_path):
    with pytest.raises(TypeError, match="caption is NoneType"):
        normalize(None)
    (tmp_path / "words.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="holds no words"):
        read_words(tmp_path / "words.txt")
