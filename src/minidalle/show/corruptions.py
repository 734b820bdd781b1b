"""The corruption picker: choose a text, a way to damage it and a seed, and see what is left."""

from collections.abc import Sequence
from dataclasses import dataclass

from minidalle.show.fragment import Fragment, escape, fragment
from minidalle.show.widgets import arrange, slider

__all__ = ["Damage", "corruption_picker"]

MASK = "<mask>"


@dataclass(frozen=True)
class Damage:
    """One text, damaged in one way with one seed: its pieces before and after, and what a model made of them.

    `repaired` is empty where no model was asked.
    """

    corruption: str
    seed: int
    pieces: Sequence[str]
    damaged: Sequence[str]
    repaired: str = ""

    @property
    def text(self) -> str:
        """The whole text, its pieces joined."""
        return "".join(self.pieces).strip()


def corruption_picker(damages: Sequence[Damage]) -> Fragment:
    """Choose a text, a corruption and a seed, and see the damaged pieces; all of it is inside the page.

    damages: one for each combination of the texts, corruptions and seeds that occur in them. Pieces that are "<mask>" stand
    out. Where a damage has `repaired`, it is written below, and said whether it is the whole text again.
    Raises ValueError naming the combination that is missing or given twice.
    """
    names = ("text", "corruption", "seed")
    (texts, corruptions, seeds), table = arrange("picker", damages, names, "Damage(...)")
    data = {
        "texts": texts, "seeds": [str(seed) for seed in seeds], "mask": MASK,
        "pieces": [list(table[index, 0, 0].pieces) for index in range(len(texts))],
        "states": {
            ",".join(map(str, key)): {"pieces": list(damage.damaged), "repaired": damage.repaired}
            for key, damage in table.items()
        },
    }  # fmt: skip
    first = table[0, 0, 0]
    body = (
        f'<div class="controls" hidden>{_choice("text", "Text", texts)}'
        f"{_choice('corruption', 'Corruption', corruptions)}"
        f"{slider('seed', 'Seed', 0, len(seeds) - 1, 0, str(seeds[0]))}</div>\n"
        f'<p class="kind">Whole</p><ol class="fragments whole">{_items(first.pieces)}</ol>\n'
        f'<p class="kind">Damaged</p><ol class="fragments damaged" aria-live="polite">{_items(first.damaged)}</ol>\n'
        f'<p class="status" role="status">{escape(corruptions[0])} of “{escape(texts[0])}”</p>'
    )
    return fragment("corruptions", body, data, "Corruptions: choose a text, a way to damage it and a seed")


def _choice(axis: str, label: str, values: Sequence[str]) -> str:
    options = "".join(f'<option value="{index}">{escape(value)}</option>' for index, value in enumerate(values))
    return f'<label class="wide">{label} <select data-axis="{axis}">{options}</select></label>'


def _items(pieces: Sequence[str]) -> str:
    return "".join(
        f"<li{' class=' + chr(34) + 'mask' + chr(34) if piece == MASK else ''}>{escape(piece)}</li>" for piece in pieces
    )
