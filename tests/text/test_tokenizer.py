"""The tokenizer keeps ids, words and captions as the plan says, and reads the original's file as the original does."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from minidalle.text import Tokenizer, byte_names

ORIGINAL = Path(__file__).parents[1] / "fixtures" / "dallebart_mini_scan"
CAPTIONS = [
    f"{person} {role}: {tone} skin tone"
    for person in ("woman", "man", "person")
    for role in ("firefighter", "teacher", "health worker")
    for tone in ("light", "medium-light", "medium", "medium-dark", "dark")
] + ["flag: Côte d’Ivoire", "keycap: 10", "Piñata", "smiling face with 3 hearts"] * 2


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocab_size=500)


def test_special_tokens_are_where_the_original_has_them(tokenizer):
    assert [tokenizer.backend.token_to_id(token) for token in ("<s>", "<pad>", "</s>")] == [0, 1, 2]
    assert tokenizer.mask_id == 4


def test_rows_are_start_text_end_padding(tokenizer):
    text_ids, text_mask = tokenizer.encode(["woman teacher: dark skin tone", "man"], 12)
    assert text_ids.shape == text_mask.shape == (2, 12)
    assert text_ids.dtype == text_mask.dtype == np.int32
    assert text_ids[:, 0].tolist() == [0, 0]
    assert text_ids[1].tolist() == [0, text_ids[1, 1], 2] + [1] * 9
    assert text_mask.sum(axis=1).tolist() == [8, 3]
    assert (text_ids[text_mask == 0] == 1).all() and (text_ids[text_mask == 1] != 1).all()


@pytest.mark.parametrize("blank", ["", "   ", "\n"])
def test_a_blank_caption_is_start_and_end_alone(tokenizer, blank):
    text_ids, text_mask = tokenizer.encode([blank], 6)
    assert text_ids.tolist() == [[0, 2, 1, 1, 1, 1]]
    assert text_mask.tolist() == [[1, 1, 0, 0, 0, 0]]


def test_bytes_have_the_names_that_gpt2_gave_them():
    names = byte_names()
    assert set(names.values()) == set(pre_tokenizers.ByteLevel.alphabet()) and len(names) == 256
    for text in ("A é \n", "\x00😀\xad\x7f"):
        ((named, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        assert "".join(names[byte] for byte in text.encode()) == named


def test_merges_make_all_that_is_neither_special_nor_a_byte(tokenizer):
    assert len(tokenizer.merges) == tokenizer.vocab_size - 5 - 256
    names = [tokenizer.backend.id_to_token(index) for index in range(261, tokenizer.vocab_size)]
    assert [left + right for left, right in tokenizer.merges] == names


def test_words_that_vary_are_tokens_of_their_own(tokenizer):
    assert tokenizer.pieces("person teacher: medium-light skin tone") == (
        [" person", " teacher", ":", " medium", "-", "light", " skin", " tone"]
    )
    assert tokenizer.pieces("keycap: 10")[-2:] == [" 1", "0"]


def test_no_merge_crosses_a_word_even_when_pairs_are_always_together():
    pieces = Tokenizer.train(["dark-skin tone (12)"] * 50, vocab_size=400).pieces("dark-skin tone (12)")
    assert pieces == [" dark", "-", "skin", " tone", " (", "1", "2", ")"]


def test_the_first_word_is_the_same_token_as_a_later_one(tokenizer):
    text_ids, _ = tokenizer.encode(["man teacher", "teacher man"], 4)
    assert text_ids[0, 1:3].tolist() == text_ids[1, 2:0:-1].tolist()


@pytest.mark.parametrize(
    "caption",
    [
        *CAPTIONS[:3],
        "Piñata",
        "漢字 and עברית",
        "👩🏽‍🚒 works",
        "a </s> inside, <pad> too",
        "tab\there",
        "nul \x00 bell \x07",
        "a" * 500,
    ],
)
def test_every_caption_comes_back(tokenizer, caption):
    text_ids, _ = tokenizer.encode([caption], 600)
    assert tokenizer.decode(text_ids) == [caption]
    assert (text_ids == 2).sum() == 1, "the text of a caption must not end it"


def test_a_long_caption_is_cut_with_its_end_kept_and_the_rest_quoted(tokenizer):
    with pytest.warns(UserWarning, match=r"caption 1 .*4 tokens.*'medium skin tone'"):
        text_ids, text_mask = tokenizer.encode(["man", "woman health worker: medium skin tone"], 6)
    assert text_ids[1, -1] == 2 and text_mask[1].all()
    assert tokenizer.decode(text_ids)[1] == "woman health worker:"


def test_a_stream_of_captions_is_cut_without_a_word(tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = tokenizer.encode(["red heart " * 100], 6, warn=False)[0]
    with pytest.warns(UserWarning, match="cut"):
        np.testing.assert_array_equal(quiet, tokenizer.encode(["red heart " * 100], 6)[0])


def test_ten_thousand_characters_are_cut_and_the_message_stays_short(tokenizer):
    with pytest.warns(UserWarning, match=r"\d+ characters\); so were 1 other") as caught:
        text_ids, _ = tokenizer.encode(["red heart " * 1000, "z" * 10_000], 64)
    assert text_ids.shape == (2, 64) and text_ids[:, -1].tolist() == [2, 2]
    assert len(str(caught[0].message)) < 250


def test_a_caption_that_fits_exactly_is_not_warned_about(tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text_ids, _ = tokenizer.encode(["man teacher"], 4)
    assert tokenizer.decode(text_ids) == ["man teacher"]


def test_the_same_captions_give_the_same_file(tokenizer, tmp_path):
    again = Tokenizer.train(iter(CAPTIONS), vocab_size=500)
    assert tokenizer.save(tmp_path / "one.json").read_bytes() == again.save(tmp_path / "two.json").read_bytes()


def test_a_saved_tokenizer_is_loaded_whole_from_file_or_folder(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    expected, _ = tokenizer.encode(CAPTIONS, 16)
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        loaded = Tokenizer.load(path)
        assert loaded.vocab_size == tokenizer.vocab_size
        np.testing.assert_array_equal(loaded.encode(CAPTIONS, 16)[0], expected)


def test_lowercase_is_learned_and_saved(tmp_path):
    Tokenizer.train(["Red Heart"] * 9, vocab_size=300, lowercase=True).save(tmp_path)
    assert Tokenizer.load(tmp_path).pieces("RED heart") == [" red", " heart"]


def test_the_original_tokenizer_file_gives_the_original_ids():
    recorded = json.loads((ORIGINAL / "tokenizer_io.json").read_text())
    tokenizer = Tokenizer.load(ORIGINAL)
    assert tokenizer.vocab_size == recorded["vocab_size"]
    with pytest.warns(UserWarning, match="cut"):
        text_ids, text_mask = tokenizer.encode(recorded["normalized"], recorded["max_text_length"])
    np.testing.assert_array_equal(text_ids, recorded["processor"]["input_ids"])
    np.testing.assert_array_equal(text_mask, recorded["processor"]["attention_mask"])
    blank_ids, blank_mask = tokenizer.encode([""], recorded["max_text_length"])
    assert blank_ids[0].tolist() == recorded["input_ids_uncond"][0]
    assert blank_mask[0].tolist() == recorded["attention_mask_uncond"][0]


@pytest.mark.parametrize(
    ("captions", "error", "message"),
    [
        ([], ValueError, "no captions"),
        ("a red heart", TypeError, "list of captions"),
        (["fine", 3], TypeError, "caption 1 is int"),
        (["fine", "bad \ud800"], ValueError, "caption 1 is not valid Unicode"),
    ],
)
def test_what_is_not_a_list_of_captions_is_refused(tokenizer, captions, error, message):
    with pytest.raises(error, match=message):
        tokenizer.encode(captions, 8)
    with pytest.raises(error, match=message):
        Tokenizer.train(captions, vocab_size=300)


def test_sizes_that_cannot_be_are_refused(tokenizer):
    with pytest.raises(ValueError, match="length is 1"):
        tokenizer.encode(["man"], 1)
    with pytest.raises(ValueError, match="need 261"):
        Tokenizer.train(CAPTIONS, vocab_size=260)


def test_bad_files_are_named(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer at .*tokenizer.json"):
        Tokenizer.load(tmp_path)
    file = tokenizer.save(tmp_path)
    file.write_text(file.read_text()[:1000])
    with pytest.raises(ValueError, match="not a readable tokenizer.json"):
        Tokenizer.load(tmp_path)


def test_another_order_of_special_tokens_is_refused(tokenizer, tmp_path):
    file = tokenizer.save(tmp_path)
    file.write_text(file.read_text().replace("<pad>", "<x>"))
    with pytest.raises(ValueError, match="<pad> at None"):
        Tokenizer.load(file)
