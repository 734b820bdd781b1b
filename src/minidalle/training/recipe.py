"""Recipes: one TOML file says everything a training run depends on."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

KINDS = ("vqgan", "bart", "clip")
SECTIONS = ("data", "model", "train", "mesh", "output")
TOP_LEVEL = ("kind", "name", "seed", *SECTIONS)


def load_recipe(path: str | Path) -> dict[str, Any]:
    """Read `recipes/<name>/<kind>.toml` into a dictionary with the keys kind, name, seed, data, model, train, mesh, output.

    Sections that the file leaves out are empty dictionaries and `seed` is 0; what stands inside a section is checked by
    the trainer of that kind, with `section`.

    Raises FileNotFoundError when there is no such file, and ValueError when it is not TOML, has an unknown key, or lacks
    `kind` or `name`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"no recipe at {path}; give the path of a TOML file such as recipes/emoji/clip.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8, so it cannot be a recipe") from error
    try:
        recipe = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error

    refuse_unknown(recipe, TOP_LEVEL, f"recipe {path}")
    for key in ("kind", "name"):
        if not isinstance(recipe.get(key), str) or not recipe[key]:
            raise ValueError(f'recipe {path} needs a line {key} = "…"')
    if recipe["kind"] not in KINDS:
        raise ValueError(f"recipe {path} has kind {recipe['kind']!r}; expected one of {', '.join(KINDS)}")
    recipe.setdefault("seed", 0)
    if not isinstance(recipe["seed"], int) or isinstance(recipe["seed"], bool) or recipe["seed"] < 0:
        raise ValueError(f"recipe {path} has seed {recipe['seed']!r}; expected a whole number, 0 or more")
    for name in SECTIONS:
        if not isinstance(recipe.setdefault(name, {}), dict):
            raise ValueError(f"recipe {path} has {name} = {recipe[name]!r}; expected a section [{name}]")
    return recipe


def section(recipe: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """One section of a recipe with its defaults filled in; a default of None stands for a value of any type.

    Raises ValueError for a key that `defaults` does not have, naming the nearest one that it has, and for a value of
    another type than its default (a whole number passes where a fraction is expected).
    """
    given = recipe.get(name, {})
    refuse_unknown(given, defaults, f"[{name}] of recipe {recipe.get('name', '')!r}")
    for key, value in given.items():
        expected = type(defaults[key])
        fits = type(value) is expected or (expected is float and type(value) is int)
        if defaults[key] is not None and not fits:
            raise ValueError(
                f"[{name}] {key} = {value!r} is of type {type(value).__name__}; "
                f"expected {expected.__name__}, as in {key} = {defaults[key]!r}"
            )
    return {**defaults, **{k: float(v) if type(defaults[k]) is float else v for k, v in given.items()}}


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise ValueError naming every key of `given` that is not in `known`, with the nearest known name beside it."""
    known = list(known)
    unknown = [key for key in given if key not in known]
    if unknown:
        named = []
        for key in unknown:
            near = difflib.get_close_matches(key, known, n=1)
            named.append(f"{key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        raise ValueError(f"{where} has unknown keys: {', '.join(named)}; known are {', '.join(known)}")
