"""min-dalle's `detoker.pt`: the decoding half of a VQGAN, under taming-transformers' names.

Its GroupNorms have epsilon 1e-5 in min-dalle, where the VQGAN was trained with 1e-6, as everything here has (at most
0.02 of 255 in a picture).

After kuprel/min-dalle 0.4.11, `min_dalle/models/vqgan_detokenizer.py`.
"""

import math
import re
from pathlib import Path

import jax.numpy as jnp
import torch
from jax.typing import DTypeLike

from ..vqgan.config import VQGANConfig
from ..vqgan.port import state_of, translate, twin_from_arrays, weights_of
from ..vqgan.twin import VQGANTwin
from .files import read_state, write_torch


def load_detoker(
    path: str | Path,
    *,
    config: VQGANConfig | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    precision: str = "highest",
) -> VQGANTwin:
    """The decoding half of a VQGAN in min-dalle's `detoker.pt`; it draws, and its `encode` says that it cannot.

    Args:
        path: the file, or a folder that holds it.
        config, dtype, param_dtype, precision: as for `load_vqgan`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds other things than weights, or weights of another network; names them.

    Source: kuprel/min-dalle, `min_dalle/models/vqgan_detokenizer.py`.
    """
    file = Path(path) / "detoker.pt" if Path(path).is_dir() else Path(path)
    state = read_detoker(file)
    config = config or config_of_detoker(state, file)
    options = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision, "with_encoder": False}
    try:
        return twin_from_arrays(config, translate(state), **options)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_detoker(file: Path, *, shapes_only: bool = False) -> dict[str, torch.Tensor]:
    """The weights in a `detoker.pt` under taming-transformers' names; raises as `load_detoker` does."""
    state = read_state(file, shapes_only=shapes_only)
    if "embedding.weight" not in state:
        raise ValueError(f"{file} is no detokenizer of min-dalle: embedding.weight is missing")
    state["quantize.embedding.weight"] = state.pop("embedding.weight")
    return state


def config_of_detoker(state: dict[str, torch.Tensor], file: Path) -> VQGANConfig:
    """The sizes that the weights of `read_detoker` show in their shapes."""
    try:
        n_embed, embed_dim = state["quantize.embedding.weight"].shape
        levels = len({match[1] for name in state if (match := re.match(r"decoder\.up\.(\d+)\.", name))})
        widths = [state[f"decoder.up.{level}.block.0.conv2.weight"].shape[0] for level in range(levels)]
        blocks = sum(f"decoder.up.0.block.{index}.conv1.weight" in state for index in range(100))
        ch = math.gcd(*widths)
        return VQGANConfig(
            ch=ch,
            ch_mult=tuple(width // ch for width in widths),
            num_res_blocks=blocks - 1,
            # As many pixels to a side as in DALL·E mini; only the level counts, see `config_of_weights` of `vqgan`.
            attn_resolutions=tuple(256 >> i for i in range(levels) if f"decoder.up.{i}.attn.0.q.weight" in state),
            z_channels=state["decoder.conv_in.weight"].shape[1],
            out_ch=state["decoder.conv_out.weight"].shape[0],
            n_embed=n_embed,
            embed_dim=embed_dim,
            resamp_with_conv=levels == 1 or "decoder.up.1.upsample.conv.weight" in state,
        )
    except KeyError as error:
        raise ValueError(f"{file} is no detokenizer of min-dalle: {error.args[0]} is missing") from error
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{file} is no detokenizer of min-dalle: its weights fit no sizes ({error})") from error


def save_detoker(twin: VQGANTwin, folder: str | Path) -> None:
    """Write the decoding half of a VQGAN as min-dalle's `detoker.pt`; the encoder is left behind.

    Weights keep their type. min-dalle itself builds its network in the sizes of DALL·E mini's VQGAN alone.

    Raises:
        ValueError: the network has something that min-dalle's lacks; names it.
    """
    config = twin.config
    fixed = {"num_res_blocks": 2, "attn_resolutions": (config.grid,), "resamp_with_conv": True, "out_ch": 3}
    fixed |= {"norm_groups": 32}
    other = [f"{name}={value!r}" for name, wanted in fixed.items() if (value := getattr(config, name)) != wanted]
    other += [f"{len(config.ch_mult)} resolutions"] if len(config.ch_mult) != 5 else []
    other += [f"quantizer={config.quantizer!r}"] if config.quantizer not in ("nearest", "ema") else []
    if other:
        raise ValueError(
            f"min-dalle has no detokenizer with {', '.join(other)}; save it as minidalle or vqgan-jax instead"
        )
    state = state_of(weights_of(twin))
    state["embedding.weight"] = state.pop("quantize.embedding.weight")
    kept = {name: state[name] for name in state if name.startswith(("embedding.", "decoder.", "post_quant_conv."))}
    write_torch(Path(folder) / "detoker.pt", kept)
