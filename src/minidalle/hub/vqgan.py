"""The original VQGAN checkpoints: vqgan-jax folders, state dicts of taming-transformers, and min-dalle's `detoker.pt`.

The originals of DALL·E mini read and draw pictures in [0, 1], as everything here does. taming-transformers itself trained
on [-1, 1]: give its own checkpoints `2 * images - 1`, and read `(decode_unclipped(codes) + 1) / 2`.
"""

import json
import pickle
import re
from pathlib import Path

import jax.numpy as jnp
import torch
from jax.typing import DTypeLike

from ..vqgan.config import VQGANConfig
from ..vqgan.port import state_of, translate, twin_from_arrays, weights_of
from ..vqgan.twin import VQGANTwin
from .detoker import load_detoker
from .download import local_path
from .files import read_torch, write_json, write_msgpack, write_torch
from .recognise import Kind, check_kind
from .stored import stored_msgpack

KINDS = (Kind("vqgan-jax", "vqgan"), Kind("taming", "vqgan"), Kind("min-dalle", "vqgan"))  # that `load_vqgan` reads


def load_vqgan(
    path: str | Path,
    *,
    config: VQGANConfig | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    precision: str = "highest",
    revision: str | None = None,
) -> VQGANTwin:
    """The VQGAN of an original checkpoint, in Flax NNX.

    Args:
        path: a vqgan-jax folder (`config.json` with `flax_model.msgpack`), or its name on the Hub, such as
            "dalle-mini/vqgan_imagenet_f16_16384"; a `.ckpt`, `.pt` or `.pth` file of taming-transformers; or min-dalle's
            `detoker.pt`, or a folder or Hub repository that holds it, which is half a VQGAN: it draws, but cannot encode.
        config: sizes; by default those of `config.json`, and for a file of PyTorch those that its weights show.
        dtype: what is computed in; codes are searched in float32. In float16 pictures of the shipped VQGAN differ by at
            most 0.4 of 255 from float32's, in bfloat16 by 3.4, and there one code in 40 is another.
        param_dtype: what weights are kept in.
        precision: of matrix products, see `VQGANTwin`.
        revision: branch, tag or commit on the Hub.

    Raises:
        FileNotFoundError: the folder or file, or a part of it, is missing, or the Hub has no such name.
        ValueError: a file is cut off or of another kind, or sizes and weights do not fit; the message names the weight.

    Source: patil-suraj/vqgan-jax, `modeling_flax_vqgan.py`; CompVis/taming-transformers, `taming/models/vqgan.py`.
    """
    path = local_path(path, "vqgan", revision=revision)
    if path.is_dir() and (path / "detoker.pt").is_file() and not (path / "flax_model.msgpack").is_file():
        path = path / "detoker.pt"
    check_kind(path, *KINDS)
    options = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
    if path.is_dir():
        config = config or read_config(path / "config.json")
        arrays = stored_msgpack(path / "flax_model.msgpack", separator=".")
    elif path.name.startswith("detoker"):
        return load_detoker(path, config=config, **options)
    else:
        state = read_taming(path)
        config = config or config_of_weights(state, path)
        arrays = translate(state)
    try:
        return twin_from_arrays(config, arrays, **options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_config(file: Path) -> VQGANConfig:
    """The sizes in an original `config.json`; raises as `load_vqgan` does."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if "ch_mult" not in values and "model_type" in values:
            raise ValueError(f"it is of model_type {values['model_type']!r}")
        return VQGANConfig.from_dict(values)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is missing; an original VQGAN folder holds it") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe a VQGAN: {error}") from error


def read_taming(file: Path, *, shapes_only: bool = False) -> dict[str, torch.Tensor]:
    """The VQGAN's own weights in a taming-transformers file, without those of its losses; raises as `load_vqgan` does."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; give a vqgan-jax folder or a taming-transformers .ckpt file")
    try:
        state = read_torch(file, shapes_only=shapes_only)
    except ValueError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        raise ValueError(
            f"{error}. Of a training checkpoint that you trust, its weights alone are kept by "
            f"state = torch.load({str(file)!r}, weights_only=False)['state_dict']; "
            "torch.save({'state_dict': state}, 'weights.ckpt')"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = {name: tensor for name, tensor in state.items() if not str(name).startswith("loss.")}
    if "quantize.embed.weight" in state:  # the Gumbel quantizer's table has a name of its own there
        state["quantize.embedding.weight"] = state.pop("quantize.embed.weight")
    if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()) or "encoder.conv_in.weight" not in state:
        raise ValueError(f"{file} holds no VQGAN of taming-transformers: there is no weight encoder.conv_in.weight")
    return state


def config_of_weights(state: dict[str, torch.Tensor], file: Path) -> VQGANConfig:
    """The sizes that a taming state dict shows in the shapes of its weights.

    Attention is placed by level in the weights and by resolution in a config: the pictures are taken to be 256 wide, as
    taming's were, which changes nothing else.
    """
    levels = 1 + max(
        (int(match[1]) for name in state if (match := re.match(r"encoder\.down\.(\d+)\.", name))), default=0
    )
    try:
        widths = [state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]
        ch, in_channels = state["encoder.conv_in.weight"].shape[:2]
        n_embed, embed_dim = state["quantize.embedding.weight"].shape
        return VQGANConfig(
            ch=ch,
            ch_mult=tuple(width // ch for width in widths),
            num_res_blocks=sum(f"encoder.down.0.block.{index}.conv1.weight" in state for index in range(100)),
            attn_resolutions=tuple(256 >> i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in state),
            in_channels=in_channels,
            out_ch=state["decoder.conv_out.weight"].shape[0],
            z_channels=state["encoder.conv_out.weight"].shape[0],
            n_embed=n_embed,
            embed_dim=embed_dim,
            resamp_with_conv=levels == 1 or "encoder.down.0.downsample.conv.weight" in state,
            quantizer="gumbel" if "quantize.proj.weight" in state else "nearest",
        )
    except KeyError as error:
        raise ValueError(f"{file} is no whole VQGAN of taming-transformers: {error.args[0]} is missing") from error


def save_vqgan_jax(twin: VQGANTwin, folder: str | Path) -> None:
    """Write a VQGAN as vqgan-jax does: `config.json` with `flax_model.msgpack`; weights keep their type.

    Raises:
        ValueError: the network has something that vqgan-jax's lacks; names it.
    """
    _check_whole(twin, "vqgan-jax", ("nearest", "ema"))
    values = twin.config.to_dict()
    for name in ("norm_groups", "quantizer", "fsq_levels"):
        del values[name]
    arrays = {name.replace(".", "/"): array for name, array in weights_of(twin).items()}
    write_msgpack(Path(folder) / "flax_model.msgpack", arrays)
    write_json(Path(folder) / "config.json", values | {"num_resolutions": len(twin.config.ch_mult)})


def save_taming(twin: VQGANTwin, file: str | Path) -> None:
    """Write a VQGAN as a `.ckpt` of taming-transformers, `{"state_dict": …}`; weights keep their type.

    The file has no place for `resolution`: what is loaded from it takes pictures to be 256 wide, see `config_of_weights`.

    Raises:
        ValueError: the network has something that taming's lacks; names it.
    """
    _check_whole(twin, "taming-transformers", ("nearest", "ema", "gumbel"))
    state = state_of(weights_of(twin))
    if twin.config.quantizer == "gumbel":
        state["quantize.embed.weight"] = state.pop("quantize.embedding.weight")
    write_torch(Path(file), {"state_dict": state})


def _check_whole(twin: VQGANTwin, holder: str, quantizers: tuple[str, ...]) -> None:
    config = twin.config
    other = [] if twin.with_encoder else ["place for a decoder without its encoder"]
    other += [] if config.norm_groups == 32 else [f"norm_groups={config.norm_groups}, always 32"]
    other += [] if config.quantizer in quantizers else [f"quantizer={config.quantizer!r}"]
    other += ["normalized codebook"] if twin.normalize else []
    if other:
        raise ValueError(f"{holder} has no {', no '.join(other)}; save this VQGAN as minidalle instead")
