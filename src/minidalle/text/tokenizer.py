"""Captions to ids and back: a byte-level BPE vocabulary learned from the captions themselves.

Notable:
- bytes are the alphabet, so no caption can fall outside of the vocabulary;
- merges never cross a word: letters, each digit and each punctuation mark are apart before any merge, so that
  "medium-light" is always "medium", "-", "light", and what is learned about a word holds wherever the word stands;
- a word carries the space before it, the first one too (as BART's `add_prefix_space`), so that it is the same token at the
  start of a caption and in the middle;
- `<s>`, `<pad>`, `</s>` are 0, 1, 2, as in dalle-mini.
"""

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from minidalle.files import write_text

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ALPHABET_SIZE = 256  # one token for each byte

# Like GPT-2's, but without the English contractions, with single digits, single marks, and accents kept at their letter.
WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]|\s+(?!\S)|\s+"


def byte_names() -> dict[int, str]:
    """Gives the printable character by which vocabularies name each of the 256 bytes: itself, or the next free one from 256.

    So a space is "Ġ" (256 + 32) in every `tokenizer.json` and `merges.txt`. As GPT-2's `encoder.py` (Radford et al. 2019).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


class Tokenizer:
    """A byte-level BPE tokenizer that pads captions into one rectangle of ids (Sennrich et al. 2016; Radford et al. 2019).

    Wraps a `tokenizers.Tokenizer` whose `<s>`, `<pad>`, `</s>` are 0, 1, 2; raises `ValueError` where they are not.
    Made by `Tokenizer.train` or `Tokenizer.load`.
    """

    start_id, pad_id, end_id = 0, 1, 2

    def __init__(self, backend: tokenizers.Tokenizer):
        for token, expected in zip(SPECIAL_TOKENS, (self.start_id, self.pad_id, self.end_id), strict=False):
            found = backend.token_to_id(token)
            if found != expected:
                raise ValueError(f"this tokenizer has {token} at {found}; dalle-mini's order needs it at {expected}")
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # a caption that says "</s>" is text, not the end of the caption
        self.backend = backend

    @classmethod
    def train(
        cls, captions: Iterable[str], vocab_size: int = 2048, *, min_frequency: int = 2, lowercase: bool = False
    ) -> "Tokenizer":
        """Learns at most `vocab_size` tokens from `captions`; the same captions give the same vocabulary.

        `vocab_size` counts the 5 special tokens and 256 bytes, so it is at least 261. Pairs seen fewer than
        `min_frequency` times are not merged. `lowercase` makes the tokenizer lower every caption from then on.
        Raises `ValueError` for a smaller `vocab_size`, for no captions and for captions that are not valid Unicode.
        """
        smallest = len(SPECIAL_TOKENS) + ALPHABET_SIZE
        if vocab_size < smallest:
            raise ValueError(f"vocab_size is {vocab_size}; the special tokens and the bytes alone need {smallest}")
        captions = _checked(captions)
        backend = tokenizers.Tokenizer(models.BPE())
        steps = [normalizers.NFC(), normalizers.Strip(), normalizers.Prepend(" ")]
        backend.normalizer = normalizers.Sequence(([normalizers.Lowercase()] if lowercase else []) + steps)
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
                # No prefix space here: inside a Sequence it would be put before every piece, not the first alone.
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(captions, trainer, length=len(captions))
        return cls(backend)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """Reads a `tokenizer.json`, or the one in the folder `path`.

        Raises `FileNotFoundError` when there is none, `ValueError` when it cannot be read or has other special ids.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"no tokenizer at {file}; expected a tokenizer.json, or a folder that holds one")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a bare Exception for every fault of the file
            raise ValueError(
                f"{file} is not a readable tokenizer.json ({error}); train or download it again"
            ) from error
        return cls(backend)

    @classmethod
    def load_or_train(cls, path: str | os.PathLike, captions: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Reads the tokenizer at `path`; where there is none yet, trains one on `captions` and puts it there."""
        if Path(path).exists():
            return cls.load(path)
        tokenizer = cls.train(captions, vocab_size)
        tokenizer.save(path)
        return tokenizer

    def save(self, path: str | os.PathLike) -> Path:
        """Writes `tokenizer.json` at `path` (or into the folder `path`), whole or not at all; returns the file."""
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        write_text(file, self.backend.to_str(pretty=True))
        return file

    def encode(self, captions: Sequence[str], length: int, *, warn: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Gives `text_ids` and `text_mask`, both `(len(captions), length)` int32: `<s> … </s>`, then `<pad>`.

        The mask is 1 on `<s> … </s>`. The empty caption is `<s> </s>`, the blank of guidance. A caption that is too long
        is cut, `</s>` kept, with a `UserWarning` (unless `warn` is False) that quotes what was cut. Raises `ValueError` for an empty list, for text
        that is not valid Unicode and for `length` below 2, `TypeError` for what is no list of strings.
        """
        if length < 2:
            raise ValueError(f"length is {length}; <s> and </s> alone need 2")
        captions = _checked(captions)
        text_ids = np.full((len(captions), length), self.pad_id, dtype=np.int32)
        text_mask = np.zeros((len(captions), length), dtype=np.int32)
        cut = []
        room = length - 2
        for row, encoding in enumerate(self.backend.encode_batch(captions, add_special_tokens=False)):
            ids = encoding.ids
            if len(ids) > room:
                cut.append((row, captions[row][encoding.offsets[room][0] :].strip()))
                ids = ids[:room]
            text_ids[row, : len(ids) + 2] = [self.start_id, *ids, self.end_id]
            text_mask[row, : len(ids) + 2] = 1
        if cut and warn:
            _warn_about(cut, room)
        return text_ids, text_mask

    def decode(self, text_ids: np.ndarray | Sequence[Sequence[int]]) -> list[str]:
        """Gives the caption of each row of ids, special tokens left out; the inverse of `encode` for a caption that fitted.

        Not restored: spaces at either end, letter case with `lowercase`, and Unicode forms other than NFC.
        """
        rows = [[int(index) for index in row] for row in text_ids]
        return [caption.strip() for caption in self.backend.decode_batch(rows, skip_special_tokens=True)]

    def pieces(self, caption: str) -> list[str]:
        """Gives the tokens of one caption as text, without `<s>` and `</s>`: what a reader wants to look at."""
        encoding = self.backend.encode(_checked([caption])[0], add_special_tokens=False)
        return [self.backend.decode([index]) for index in encoding.ids]

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included: the rows that the text embedding needs."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The pairs that were merged, first learned first, each byte by its name of `byte_names`."""
        return [tuple(pair) for pair in json.loads(self.backend.to_str())["model"]["merges"]]

    @property
    def mask_id(self) -> int | None:
        """The id of `<mask>` for the corruptions of `minidalle.text.noise`, or None where the vocabulary has none."""
        return self.backend.token_to_id("<mask>")


def _checked(captions: Iterable[str]) -> list[str]:
    """The captions as a list, after what no tokenizer could make sense of has been refused."""
    if isinstance(captions, str):
        raise TypeError(f"expected a list of captions, got the single string {captions[:40]!r}; put it into a list")
    captions = list(captions)
    if not captions:
        raise ValueError("there are no captions; give a list of at least one")
    for index, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise TypeError(f"caption {index} is {type(caption).__name__}, not str: {caption!r:.60}")
        try:
            caption.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"caption {index} is not valid Unicode text at character {error.start} (a lone surrogate); "
                "read its file with the right encoding"
            ) from None
    return captions


def _warn_about(cut: list[tuple[int, str]], room: int) -> None:
    """Warns once for all captions that were too long, and quotes the first."""
    row, rest = cut[0]
    quoted = repr(rest) if len(rest) <= 60 else f"{rest[:57]!r}… ({len(rest)} characters)"
    others = f"; so were {len(cut) - 1} other captions" if len(cut) > 1 else ""
    warnings.warn(
        f"caption {row} is longer than {room} tokens and was cut before {quoted}{others}", UserWarning, stacklevel=3
    )
