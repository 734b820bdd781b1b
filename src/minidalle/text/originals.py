"""The originals' ways with captions: DALL·E mini's own tokenizer and normalizer, and CLIP's tokenizer."""

from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from .normalizer import Words, normalize, read_words
from .tokenizer import Tokenizer

WORD_LIST = "enwiki-words-frequency.txt"
# OpenAI's CLIP: elisions, runs of letters, single digits, runs of marks.
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def load_tokenizer(folder: str | Path, ending: str = "") -> Tokenizer:
    """DALL·E mini's tokenizer from its folder: `tokenizer.json`, or the older `vocab.json` with `merges.txt`.

    With an ending, "_mini" beside min-dalle's files, only `vocab_mini.json` with `merges_mini.txt`: they hold the same BPE.
    Raises FileNotFoundError when the folder has none of them, ValueError when they are broken or `<s>`, `<pad>`, `</s>`
    are not 0, 1, 2.
    """
    folder = Path(folder)
    if not ending and ((folder / "tokenizer.json").is_file() or not (folder / "vocab.json").is_file()):
        return Tokenizer.load(folder)
    backend = tokenizers.Tokenizer(_read_bpe(folder, ending))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


class CLIPTokenizer(Tokenizer):
    """CLIP's tokenizer (Radford et al. 2021): lower case, words end in `</w>`, `<|startoftext|>` … `<|endoftext|>`.

    Padded with its end token, as Hugging Face does. Raises ValueError when one of the two tokens is not in `backend`.
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        self.start_id, self.end_id = map(backend.token_to_id, ("<|startoftext|>", "<|endoftext|>"))
        if self.start_id is None or self.end_id is None:
            raise ValueError("this is no tokenizer of CLIP: it lacks <|startoftext|> or <|endoftext|>")
        self.pad_id = self.end_id
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        self.backend = backend

    @classmethod
    def load(cls, path: str | Path) -> "CLIPTokenizer":
        """From a CLIP's folder: `tokenizer.json`, or the older `vocab.json` with `merges.txt`; raises as `load_tokenizer`."""
        path = Path(path)
        if (path / "tokenizer.json").is_file() or not (path / "vocab.json").is_file():
            return super().load(path)
        backend = tokenizers.Tokenizer(_read_bpe(path, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
        steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        backend.normalizer = normalizers.Sequence(steps)
        words = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        backend.decoder = decoders.ByteLevel()
        return cls(backend)


class CaptionNormalizer:
    """`normalize` with the list of words that lies in a DALL·E mini folder, read when the first hashtag comes by.

    Raises ImportError at once where `normalize` would lack a library.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        normalize("")

    @cached_property
    def words(self) -> Words | None:
        """The words that hashtags are made of, or None where the folder has no list of them."""
        file = self.folder / WORD_LIST
        return read_words(file) if file.is_file() else None

    def __call__(self, caption: str) -> str:
        return normalize(caption, words=lambda: self.words)


def _read_bpe(folder: Path, ending: str = "", **options: str) -> models.BPE:
    vocabulary, merges = folder / f"vocab{ending}.json", folder / f"merges{ending}.txt"
    for file in (vocabulary, merges):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; a tokenizer needs {vocabulary.name} and {merges.name}")
    try:
        return models.BPE.from_file(str(vocabulary), str(merges), **options)
    except Exception as error:  # the library raises a bare Exception for every fault of the files
        raise ValueError(
            f"{vocabulary} and {merges.name} are no readable tokenizer ({error}); copy them anew"
        ) from error
