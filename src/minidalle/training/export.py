"""Finished weights on disk: `config.json` beside `model.safetensors`, each complete or not at all, and read back with care."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from minidalle.files import replacing, write_json


def save_arrays(
    folder: str | Path, kind: str, config: dict[str, Any], arrays: dict[str, np.ndarray], half: bool = True
) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, each complete or not at all.

    Args:
        kind: "vqgan", "bart" or "clip"; stands in the config, so that a folder tells what it is.
        arrays: weights by name; floating-point ones are stored in float16 when `half`.

    Raises:
        ValueError: a weight is NaN or infinite (in float16, if so stored).
    """
    folder = Path(folder)
    stored = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if np.issubdtype(array.dtype, np.floating) and half:
            array = array.astype(np.float16)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ValueError(f"weight {name} holds NaN or infinity and is not saved; go back to an earlier checkpoint")
        stored[name] = np.asarray(array, order="C")  # ascontiguousarray would make a scalar a vector
    with replacing(folder / "model.safetensors") as temporary:
        save_file(stored, temporary, metadata={"format": "minidalle", "kind": kind})
        temporary.chmod(0o644)  # safetensors makes files that only their owner may read
    write_json(folder / "config.json", {"kind": kind, **config})


def read_config(folder: str | Path, kind: str) -> dict[str, Any]:
    """Return the `config.json` of a folder without its `kind`, after checking that it is of that kind.

    Raises:
        FileNotFoundError, ValueError: there is none, it is not JSON, or it describes another kind of network.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a {kind} checkpoint is config.json beside model.safetensors")
    try:
        config = json.loads(path.read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); copy the checkpoint anew") from error
    if not isinstance(config, dict) or config.pop("kind", None) != kind:
        raise ValueError(f'{path} does not describe a {kind}; expected "kind": "{kind}"')
    return config


def read_arrays(folder: str | Path) -> dict[str, np.ndarray]:
    """Return the weights of a folder by name, in the type they are stored in.

    Raises:
        FileNotFoundError, ValueError: the file is missing, truncated or corrupt, or a weight is NaN or infinite.
    """
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the checkpoint is not complete")
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} is truncated or corrupt ({error}); copy the checkpoint anew") from error
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ValueError(
                f"{path}: weight {name} holds NaN or infinity; this checkpoint is damaged or its training diverged"
            )
    return arrays
