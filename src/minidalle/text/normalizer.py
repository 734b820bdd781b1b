"""Captions as DALL·E mini saw them: plain lower-case words with commas, whatever the caption looked like on its web page.

Notable:
- gives what `TextNormalizer` of dalle-mini (`src/dalle_mini/model/text.py`) gives, its peculiarities included, because a
  published checkpoint knows no other captions; our own checkpoints need none of it;
- every step is a row of the two tables below; each pattern takes time proportional to the caption's length;
- the original downloads a list of words to take hashtags apart; here the list is handed in by who has it.
"""

import html
import math
import random as standard_random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Dots within a word, elisions and dates must outlive the removal of punctuation, so they travel as words meanwhile.
DOT, QUOTE, SLASH = "xtokxdotxtokx", "xtokxquotextokx", "xtokxslashxtokx"

CLEAN = [
    (r"\A\s*\[\d+\]|\[\d+\]\s*\Z", ""),  # a reference of Wikipedia at either end
    (r"<[^<]+?>", " "),  # HTML tags
    (r"http\S+", ""),
    (r"(\d),(\d{3})", r"\1\2"),  # 1,234,567: one comma now,
    (r"(\d),(\d{3})", r"\1\2"),  # and the other in a second turn
    (r"(\w)\.(\w)", rf"\1{DOT}\2"),
    (r"'(?=(?:[stdm]|ll|re|ve)\b)", QUOTE),
    (r"(\d)/(\d)", rf"\1{SLASH}\2"),
    (r"(\w)-(\w)", r"\1 \2"),
    (r"([%&/$*])", r" \1 "),
]
SIMPLIFY = [
    (r"[_#\\]", " "),
    (r"['\"`]", ' " '),
    (r"[()[\].,|:;?!=+~\-/{}]", ","),
    (DOT, "."),
    (QUOTE, "'"),
    (SLASH, "/"),
    (r"(\D)\1{3,}", r"\1"),  # soooo
    (r"\s+", " "),
    (r' ?"[ "]*', ' " '),
    (r" ?,[ ,]*", ", "),
    (r"\s+", " "),
    (r"\A ?(?:, ?)?|(?: ?,)? ?\Z", ""),
]
PEOPLE = {"a person": 282265, "someone": 121194, "somebody": 12219}  # how often the original puts which for <person>


@dataclass(frozen=True)
class Words:
    """The words that hashtags are made of: the `costs` of each, log(rank), and the length of the `longest`."""

    costs: Mapping[str, float]
    longest: int


def normalize(
    caption: str,
    *,
    words: Words | Callable[[], Words | None] | None = None,
    random: standard_random.Random | None = None,
) -> str:
    """Gives the caption as dalle-mini's `TextNormalizer` gives it: one leading space, then lower-case ASCII.

    words: from `read_words`, or what gives them when the first hashtag comes by; with them "#sunsetbeach" becomes "sunset
    beach"; None leaves hashtags in one piece.
    random: chooses what stands for CC12M's `<person>`, as the original does; None always takes the most frequent.

    An empty caption gives " ". Raises `ImportError` where ftfy, emoji or unidecode is missing, `TypeError` when the
    caption is not a string.
    """
    if not isinstance(caption, str):
        raise TypeError(f"the caption is {type(caption).__name__}, not str: {caption!r:.60}")
    try:
        import emoji
        import ftfy
        import unidecode
    except ImportError as error:
        raise ImportError(
            f"normalize needs the library {error.name}; install ftfy, emoji and unidecode (pip install minidalle[text])"
        ) from error
    caption = html.unescape(html.unescape(ftfy.fix_text(caption)))
    caption = unidecode.unidecode(emoji.demojize(caption), errors="ignore").lower()
    caption = _name_people(caption, random)
    caption = _apply(CLEAN, caption)
    if "#" in caption and (known := words() if callable(words) else words) is not None:
        caption = re.sub(r"#(\w+)", lambda found: split_words(found[1], known), caption)
    return " " + _apply(SIMPLIFY, caption)


def read_words(path: str | Path) -> Words:
    """Reads a list of words, most frequent first, "word count" in each line.

    The original's is `enwiki-words-frequency.txt` of the repository dalle-mini/dalle-mini. Raises `ValueError` when the
    file holds no words.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    costs = {line.split()[0]: math.log(rank) for rank, line in enumerate(lines, 1) if line.strip()}
    if not costs:
        raise ValueError(f"{path} holds no words; expected 'word count' in each line")
    return Words(costs, max(map(len, costs)))


def split_words(text: str, words: Words) -> str:
    """Puts spaces between run-together words, such that the words' costs add up to the least (as wordninja does).

    A part that no listed words cover falls apart into letters; numbers and "'s" are kept in one piece.
    """
    return " ".join(word for run in re.split(r"[^a-zA-Z0-9']+", text) for word in _split_run(run, words))


def _split_run(text: str, words: Words) -> list[str]:
    least: list[tuple[float, int]] = [(0.0, 0)]  # for each end: the cost so far, and the length of the last word
    for end in range(1, len(text) + 1):
        lengths = range(1, min(words.longest, end) + 1)
        least.append(
            min((least[end - n][0] + words.costs.get(text[end - n : end].lower(), math.inf), n) for n in lengths)
        )
    found, end = [], len(text)
    while end > 0:
        word = text[end - least[end][1] : end]
        end -= len(word)
        if found and word != "'" and (found[-1] == "'s" or (word[-1].isdigit() and found[-1][0].isdigit())):
            found[-1] = word + found[-1]
        else:
            found.append(word)
    return found[::-1]


def _name_people(caption: str, random: standard_random.Random | None) -> str:
    """Names the people that CC12M hides: several `<person>` in a row are people, a single one is a person."""
    caption = re.sub(r"<person>(?:[,\s]*(?:(?:and)+[,\s]*)?<person>)+", " people ", caption)

    def name(_: re.Match) -> str:
        if random is None:
            return " a person "
        return f" {random.choices(list(PEOPLE), list(PEOPLE.values()))[0]} "

    return re.sub("<person>", name, caption)


def _apply(steps: list[tuple[str, str]], caption: str) -> str:
    for pattern, replacement in steps:
        caption = re.sub(pattern, replacement, caption)
    return caption
