"""Write the model card of the shipped checkpoint from what was measured.

`python -m tools.card` evaluates the checkpoint, keeps the numbers in `evaluation.json` beside the weights, and writes the
card (`README.md`) from them; `--from-json` only writes the card anew. No number in the card is typed by hand.
"""

import argparse
import json
import os
import platform
import time
import tomllib
from typing import Any

from tools.chapters import ROOT

FOLDER = ROOT / "src" / "minidalle" / "checkpoints" / "emoji"
RECIPES = ROOT / "recipes" / "emoji"
ORDER = ("vqgan", "bart-1-compose", "bart-2-memorise", "bart-3-settle", "clip")  # as `make checkpoints` runs them

TEMPLATE = """# The emoji checkpoint

A VQGAN, a DalleBart and a CLIP, trained from nothing on the emoji that ship with minidalle: a caption such as
"woman firefighter: medium skin tone" becomes 64 codes, a 64×64 picture, and a score. It is small enough to train on two
CPU cores and to run anywhere; it is there to show every part of DALL·E mini at work, not to draw whatever you ask for.

{sizes}

## Data

All 3,655 fully-qualified emoji of Unicode 15, drawn from Noto Color Emoji (SIL Open Font License 1.1) at 64×64 pixels on
white; captions are the CLDR short names (Unicode licence). 320 whole combinations of a role, skin tone and hair are held
out of all training: 80 ("valid") to choose settings by, 240 ("test") for the numbers below.

## Training

`make checkpoints` trains all three again, from the recipes and in this order:

{training}

{machine}

## Scores

Computed by `minidalle evaluate emoji --seed {evaluation_seed}` on the test split, in {seconds:.0f} s on
{evaluation_machine}. In brackets: 95 % intervals (Wilson). Sampling: guidance {guidance:g}, temperature {temperature:g}.

**Reconstruction by the VQGAN**

| pictures | PSNR | SSIM | codes in use | perplexity |
|---|---|---|---|---|
{reconstruction}

**Drawing.** A picture counts as right when the nearest of the 3,655 real emoji, by squared pixel distance, is

| captions | picture | the caption's own | of the right role and hair | of the right skin tone | of both |
|---|---|---|---|---|---|
{drawing}

**CLIP**, held-out pictures: their caption among all 3,655 is first for {recall1}, among the first five for {recall5}.

## What limits it

{limits}
"""


def percent(entry: dict[str, float]) -> str:
    """Return a share with its interval, `81 % (76–85)`."""
    return f"{100 * entry['share']:.1f} % ({100 * entry['low']:.0f}–{100 * entry['high']:.0f})"


def card(record: dict[str, Any]) -> str:
    """Return the card's text for one `evaluation.json`."""
    scores, recipes = record["scores"], record["recipes"]
    held_out, seen = scores["held_out_combinations"], scores["seen_captions"]
    reconstruction = "\n".join(
        f"| {name} ({row['pictures']}) | {row['psnr_db']:.2f} dB | {row['ssim']:.3f} "
        f"| {100 * row['codes_used']:.1f} % | {row['perplexity']:.0f} |"
        for name, row in (
            ("never seen", scores["reconstruction"]["unseen"]),
            ("the whole collection", scores["reconstruction"]["all"]),
        )
    )
    rows = [
        (f"seen in training ({seen['captions']} of them)", "first drawn", seen["first"]),
        (f"held-out combinations ({held_out['captions']})", "first drawn", held_out["first"]),
        (f"held-out combinations ({held_out['captions']})", "CLIP's best of 8", held_out["best"]),
    ]
    drawing = "\n".join(
        f"| {captions} | {which} | "
        + " | ".join(percent(row[key]) for key in ("exact", "role", "tone", "role_and_tone"))
        + " |"
        for captions, which, row in rows
    )
    sizes = "\n".join(
        f"- {name}: {part['parameters']:,} parameters, {part['bytes'] / 1e6:.1f} MB in half precision"
        for name, part in record["parts"].items()
    )
    training = "\n".join(
        f"- `recipes/emoji/{kind}.toml`: {recipe['train'].get('stop_at') or recipe['train']['steps']:,} steps of "
        f"{recipe['train']['batch_size']}, {recipe['train'].get('optimizer', 'adamw')}, "
        f"learning rate {recipe['train']['learning_rate']:g}, seed {recipe['seed']}"
        for kind, recipe in recipes.items()
    )
    return TEMPLATE.format(
        sizes=sizes,
        training=training,
        machine=record["training_machine"],
        evaluation_seed=held_out["seed"],
        seconds=record["seconds"],
        evaluation_machine=record["machine"],
        guidance=held_out["guidance"],
        temperature=held_out["temperature"],
        reconstruction=reconstruction,
        drawing=drawing,
        recall1=percent(scores["retrieval_unseen"]["recall_at_1"]),
        recall5=percent(scores["retrieval_unseen"]["recall_at_5"]),
        limits=record["limits"],
    )


def evaluate() -> dict[str, Any]:
    """Return scores, sizes, recipes, machine and seconds of the shipped checkpoint."""
    from minidalle.evaluate import evaluate_emoji
    from minidalle.hub.info import describe
    from minidalle.pipeline import Pipeline

    started = time.perf_counter()
    scores = evaluate_emoji(Pipeline.load("emoji"))
    parts = {name: {key: part[key] for key in ("parameters", "bytes")} for name, part in describe("emoji").items()}
    recipes = {kind: tomllib.loads((RECIPES / f"{kind}.toml").read_text()) for kind in ORDER}
    return {
        "scores": scores,
        "parts": parts,
        "recipes": {kind: {"seed": r["seed"], "train": r["train"]} for kind, r in recipes.items()},
        "seconds": time.perf_counter() - started,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }


def main() -> None:
    """Evaluate, unless told not to, and write `evaluation.json` and the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from-json", action="store_true", help="do not evaluate; write the card from evaluation.json")
    options = parser.parse_args()
    path = FOLDER / "evaluation.json"
    record = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
    if not options.from_json:
        record.update(evaluate())
    record.setdefault("training_machine", "")
    record.setdefault("limits", "")
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
    (FOLDER / "README.md").write_text(card(record), encoding="utf8")


if __name__ == "__main__":
    main()
