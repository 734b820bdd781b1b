"""Draw `generated.png`, the README's picture: what the shipped model makes of six captions, best first, seed 0.

`python book/figures/make_generated.py`, after the checkpoint has changed. Three of the captions are held out of training.
"""

from pathlib import Path

from minidalle import Pipeline, show
from minidalle.data import emoji

SEEN = ["red apple", "tropical fish", "rainbow"]
HELD_OUT = [
    "woman astronaut: medium skin tone",
    "man firefighter: dark skin tone",
    "fairy: medium skin tone",
]


def main() -> None:
    """Check that the captions are what they are said to be, draw them, and write the picture."""
    data = emoji.load()
    for captions, split in ((SEEN, "train"), (HELD_OUT, "test")):
        members = {data.captions[row] for row in data.split(split)}
        if not members.issuperset(captions):
            raise SystemExit(
                f"not in {split}: {set(captions) - members}; choose other captions"
            )
    found = Pipeline.load("emoji").generate([*SEEN, *HELD_OUT], n=8, seed=0)
    picture = show.compare(
        {candidates.caption: candidates.images for candidates in found}
    )
    Path(__file__).with_name("generated.png").write_bytes(picture._repr_png_())


if __name__ == "__main__":
    main()
