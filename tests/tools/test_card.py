"""The model card says what was measured, of the weights and recipes that lie here."""

import json
import tomllib

import pytest

from minidalle import Pipeline
from minidalle.data import emoji
from minidalle.evaluate import reconstruction, retrieval
from minidalle.hub.info import describe
from tools import card


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((card.FOLDER / "evaluation.json").read_text(encoding="utf8"))


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.load("emoji")


def test_the_card_is_written_from_the_record(record: dict) -> None:
    assert (card.FOLDER / "README.md").read_text(encoding="utf8") == card.card(record)
    assert record["training_machine"].strip() and record["limits"].strip()


def test_the_record_knows_the_present_recipes(record: dict) -> None:
    assert list(record["recipes"]) == list(card.ORDER)
    for name, recorded in record["recipes"].items():
        recipe = tomllib.loads((card.RECIPES / f"{name}.toml").read_text(encoding="utf8"))
        assert recorded == {"seed": recipe["seed"], "train": recipe["train"]}, f"{name}.toml changed since it was run"


def test_every_recipe_is_trained_by_make_checkpoints_in_this_order() -> None:
    lines = (card.ROOT / "Makefile").read_text(encoding="utf8").splitlines()
    trained = [line.split("recipes/emoji/")[1] for line in lines if "train recipes/emoji/" in line]
    assert trained == [f"{name}.toml" for name in card.ORDER]
    assert sorted(trained) == sorted(path.name for path in card.RECIPES.glob("*.toml"))


def test_the_record_has_the_sizes_of_the_shipped_files(record: dict) -> None:
    for name, part in describe("emoji").items():
        assert record["parts"][name] == {key: part[key] for key in ("parameters", "bytes")}
    assert sum(path.stat().st_size for path in card.FOLDER.rglob("*") if path.is_file()) <= 40e6


def test_quick_scores_come_out_again(record: dict, pipe: Pipeline) -> None:
    test = emoji.load().split("test")
    again, recorded = reconstruction(pipe, test), record["scores"]["reconstruction"]["unseen"]
    assert again["psnr_db"] == pytest.approx(recorded["psnr_db"], abs=0.02)
    assert again["codes_used"] == pytest.approx(recorded["codes_used"], abs=0.01)
    again, recorded = retrieval(pipe, test), record["scores"]["retrieval_unseen"]
    for name in ("recall_at_1", "recall_at_5"):
        assert again[name]["share"] == pytest.approx(recorded[name]["share"], abs=0.01)


def test_the_record_was_made_with_the_settings_that_the_checkpoint_recommends(record: dict, pipe: Pipeline) -> None:
    for part in ("seen_captions", "held_out_combinations"):
        settings = {name: record["scores"][part][name] for name in ("guidance", "temperature")}
        assert settings == {"guidance": pipe.sampling.guidance, "temperature": pipe.sampling.temperature}
