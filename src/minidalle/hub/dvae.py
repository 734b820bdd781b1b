"""OpenAI's discrete VAE from plain state dicts.

The published `encoder.pkl` and `decoder.pkl` are whole pickled modules, which run code when they are opened, and are not
read here. Whoever trusts them keeps their weights alone, once: `torch.save(torch.load("encoder.pkl",
weights_only=False).state_dict(), "encoder.pt")`, with the package `dall_e` installed, and likewise the decoder.
"""

import re
from pathlib import Path

import torch

from ..vqgan.dvae import DVAE
from .files import read_state


def load_dvae(folder: str | Path) -> DVAE:
    """The discrete VAE of a folder with `encoder.pt` and `decoder.pt`, in evaluation mode and float32.

    Sizes are those that the weights show.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a file is damaged, a pickled module, or holds weights of another network; names them.

    Source: openai/DALL-E, `dall_e/encoder.py` and `decoder.py`.
    """
    folder = Path(folder)
    state = {}
    for half in ("encoder", "decoder"):
        for name, tensor in read_state(folder / f"{half}.pt").items():
            state[f"{half}.{_native_name(name)}"] = tensor.float()
    try:
        n_hid, n_init = (state[f"{half}.input.weight"].shape[0] for half in ("encoder", "decoder"))
        blocks = len({name.split(".")[3] for name in state if name.startswith("encoder.groups.0.")})
        vocab_size = state["encoder.output.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise ValueError(f"{folder} holds no discrete VAE of OpenAI: {error.args[0]} is missing") from error
    with torch.device("meta"):  # no random weights are made, only to be overwritten
        model = DVAE(vocab_size, n_hid, n_init, blocks)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{folder}: encoder and decoder are no whole discrete VAE: {error}") from error
    return model.eval().requires_grad_(False)


def _native_name(name: str) -> str:
    """Their name of a weight as ours: `blocks.group_1.block_2.res_path.conv_3.w` is `groups.0.1.res_path.2.weight`."""
    name = re.sub(r"group_(\d+)\.block_(\d+)", lambda found: f"groups.{int(found[1]) - 1}.{int(found[2]) - 1}", name)
    name = re.sub(r"res_path\.conv_(\d+)", lambda found: f"res_path.{int(found[1]) - 1}", name)
    name = name.removeprefix("blocks.").replace("output.conv.", "output.")
    return re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", name))
