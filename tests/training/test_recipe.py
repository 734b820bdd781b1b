"""A recipe is read whole, and what it should not say is named."""

import pytest

from minidalle.training import load_recipe, section


def write(tmp_path, text):
    path = tmp_path / "clip.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_has_every_section_and_a_seed(tmp_path):
    recipe = load_recipe(write(tmp_path, 'kind = "clip"\nname = "emoji"\n[train]\nsteps = 3\n'))
    assert recipe == {
        "kind": "clip", "name": "emoji", "seed": 0, "data": {}, "model": {}, "train": {"steps": 3}, "mesh": {}, "output": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "clip"\nname = "a"\nsed = 1\n', "'sed'.*did you mean 'seed'"),
        ('kind = "clip"\nname = "a"\n[trian]\nsteps = 1\n', "'trian'.*did you mean 'train'"),
        ('kind = "gan"\nname = "a"\n', "'gan'; expected one of vqgan, bart, clip"),
        ('kind = "clip"\n', "needs a line name"),
        ('kind = "clip"\nname = "a"\nseed = -1\n', "seed -1"),
        ('kind = "clip"\nname = "a"\nmodel = 3\n', r"expected a section \[model\]"),
        ('kind = "clip\n', "not valid TOML.*line 1"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(write(tmp_path, text))


def test_a_missing_recipe_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recipe at .*nothing\.toml; give the path"):
        load_recipe(tmp_path / "nothing.toml")


def test_a_section_fills_in_defaults_and_takes_whole_numbers_for_fractions():
    recipe = {"name": "emoji", "train": {"learning_rate": 1, "path": "x"}}
    filled = section(recipe, "train", {"learning_rate": 0.5, "steps": 10, "path": None})
    assert filled == {"learning_rate": 1.0, "steps": 10, "path": "x"}
    assert type(filled["learning_rate"]) is float


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step": 1}, "'step'.*did you mean 'steps'"),
        ({"steps": "many"}, "steps = 'many' is of type str; expected int"),
        ({"steps": True}, "of type bool"),
        ({"steps": 1.5}, "of type float"),
    ],
)
def test_a_section_refuses_unknown_keys_and_wrong_types(given, message):
    with pytest.raises(ValueError, match=message):
        section({"name": "emoji", "train": given}, "train", {"steps": 10})
