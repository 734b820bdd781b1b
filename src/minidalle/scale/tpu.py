"""Programs compiled for TPUs that are not there: does it fit, how long will a step take, what is sent around?

The optional `libtpu` holds the whole compiler, which needs no TPU: it compiles for the description of a slice, and its
program tells what each device must remember, how many cycles it takes, and what devices tell each other.

    report = compile_training(cost.MINI, "v3-8", batch=272)
    report.fits, report.total, report.seconds, report.collectives
"""

import functools
import importlib.util
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from ..bart import objective, sampling
from ..bart.config import DalleBartConfig
from ..bart.devices import head_sharding
from ..bart.model import DalleBart
from ..training.optimizer import make_optimizer
from ..training.placement import ROWS, Placement
from ..training.settings import DTYPES
from ..training.step import Step
from ..training.tree import flatten_names
from . import cost
from .hlo import Collective, Program
from .mesh import on_mesh
from .quiet import quieten_libtpu
from .slices import Slice, find_slice

# What the compiler says of a program that has no room: what it needs, and what there is.
TOO_LARGE = (
    r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm",
    r"required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
)
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Report:
    """What the compiler says of a program. Bytes are those of one device, seconds those of one run.

    Attributes:
        slice: what it was compiled for.
        mesh: devices along each axis.
        batch: pictures, on all devices together.
        arguments: bytes that stay between runs: weights, optimizer, batch; or weights, keys and values.
        temporaries: bytes at the worst moment of a run besides; both are nan where the compiler gave up and told the sum only.
        total: bytes needed. capacity: bytes there are.
        computing: seconds by the compiler's own estimate of cycles; nan where the program does not fit.
        collectives: what devices send to each other in one run.
        operations: floating-point operations of the matrix products that the result needs, on all devices.
        compiled_in: seconds that the compiler took here.
    """

    slice: Slice
    mesh: dict[str, int]
    batch: int
    arguments: float
    temporaries: float
    total: float
    capacity: float
    computing: float
    collectives: tuple[Collective, ...]
    operations: int
    compiled_in: float

    @property
    def fits(self) -> bool:
        """Whether a device has room for it."""
        return self.total <= self.capacity

    @property
    def communicating(self) -> float:
        """Seconds to send what is sent over all links of a chip at full speed, its devices one after the other."""
        chip = self.slice.chip
        return sum(collective.sent for collective in self.collectives) * chip.devices / chip.interconnect

    @property
    def seconds(self) -> float:
        """Seconds of a run in which nothing is sent while something is computed; the compiler overlaps some of it."""
        return self.computing + self.communicating

    @property
    def utilisation(self) -> float:
        """Share of the devices' peak that goes into needed operations (model FLOP utilisation)."""
        return self.operations / (self.seconds * self.slice.devices * self.slice.device.half)

    def told(self) -> dict[str, Any]:
        """All that the compiler said, as plain values; seconds and bytes as in the attributes, nan where it gave up."""
        names = (
            "total",
            "capacity",
            "arguments",
            "temporaries",
            "computing",
            "communicating",
            "seconds",
            "utilisation",
        )
        collectives = [{**each._asdict(), "sent": each.sent} for each in self.collectives]
        return {"fits": self.fits, **{name: getattr(self, name) for name in names}, "collectives": collectives}


@functools.cache
def devices(name: str) -> list[Any]:
    """The described devices of a slice, for `jax.make_mesh(…, devices=…)` and shardings of what is lowered.

    Raises:
        ImportError: libtpu is missing.
        ValueError: there is no slice of this name.
    """
    found = find_slice(name)
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(
            f'compiling for TPUs needs libtpu, which is missing; pip install "jax[tpu]=={jax.__version__}" brings it'
        )
    from jax.experimental import topologies

    # Chips of one machine: four, or all eight of a flat slice of eight, or the only one.
    whole = {"1x1": (1, 1, 1), "2x4": (2, 4, 1)}.get(found.shape, (2, 2, 1))
    quieten_libtpu()
    described = topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{found.generation}:{found.shape}",
        chip_config_name=found.chip.layout,
        chips_per_host_bounds=whole,
    )
    return list(described.devices)


def compile_training(
    config: DalleBartConfig,
    name: str,
    batch: int,
    *,
    mesh: Mapping[str, int] | None = None,
    optimizer: str = "adamw",
    precision: str = "bfloat16",
) -> Report:
    """The training step of `minidalle.training`, compiled for a slice: forward, backward and update.

    Weights, gradients and the optimizer's moments are float32; layers are recomputed where the configuration says so.

    Args:
        config: the DalleBart's.
        name: of the slice, as "v3-8".
        batch: pictures a step, on all devices together.
        mesh: devices along the axes "data", "fsdp", "model" of `minidalle.scale.mesh`; what is left over goes to "data".
        optimizer: one of `minidalle.training.optimizer.OPTIMIZERS`.
        precision: what is computed in, "bfloat16" or "float32".

    Raises:
        ImportError: libtpu is missing.
        ValueError: the slice is unknown, the mesh does not fit it, or the mesh cannot share the batch evenly.
    """
    placement = _placement(name, mesh)
    _check_rows(placement, batch)
    model = nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0), dtype=DTYPES[precision]))

    def loss_fn(model: DalleBart, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict]:
        return objective.loss(model, **batch, key=key), {}

    lengths = {"text_ids": config.max_text_length, "text_mask": config.max_text_length, "codes": config.image_length}
    rows = {field: jax.ShapeDtypeStruct((batch, length), jnp.int32) for field, length in lengths.items()}
    rule = make_optimizer(optimizer, 1e-4, 1000)
    lowered = Step(loss_fn, model, rule, rows, placement=placement).lower()
    return _report(lowered, name, placement, batch, cost.training_operations(config, batch))


def compile_sampling(
    config: DalleBartConfig,
    name: str,
    pictures: int,
    *,
    mesh: Mapping[str, int] | None = None,
    guided: bool = True,
    precision: str = "bfloat16",
) -> Report:
    """The loop of `minidalle.bart.sample` that draws all codes of so many pictures, compiled for a slice.

    Weights are of the type that is computed in. Reading the captions, done once before, is compiled and not reported.

    Args:
        config, name, mesh, precision: as for `compile_training`.
        pictures: drawn together, on all devices.
        guided: each has an unconditional twin.

    Raises:
        As `compile_training`.
    """
    placement, dtype = _placement(name, mesh), DTYPES[precision]
    _check_rows(placement, pictures)
    rows = pictures * (2 if guided else 1)
    structure, parameters = nnx.split(
        nnx.eval_shape(lambda: DalleBart(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype))
    )
    model = nnx.merge(structure, parameters)
    parameters = _placed(parameters, placement)

    def shaped(shape: tuple[int, ...], *axes: Any, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(placement.mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    captions = shaped((rows, config.max_text_length), ROWS)
    keys = shaped((pictures,), ROWS, dtype=jax.eval_shape(lambda: jax.random.key(0)).dtype)
    reading = sampling._read_captions.lower(
        structure, parameters, captions, captions, shaped((rows,), ROWS), keys, 0, config.codebook_size
    )
    prompt = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        reading.out_info,
        reading.compile().output_shardings,
    )
    codes = shaped((pictures, config.image_length), ROWS)
    progress = jax.eval_shape(lambda codes: sampling._start(model, codes, rows, None), codes)
    cached = head_sharding(NamedSharding(placement.mesh, PartitionSpec(ROWS)), config.decoder_attention_heads)
    progress = jax.tree.map(
        lambda leaf: shaped(leaf.shape, *(cached.spec if leaf.ndim == 4 else [ROWS]), dtype=leaf.dtype), progress
    )
    settings = sampling.check_settings(10.0 if guided else 1.0, 1.0, None, None, config.codebook_size)
    lowered = sampling._advance.lower(structure, parameters, prompt, progress, 0, config.image_length, settings)
    products = sum(count for part, count in cost.step_products(config).items() if part != "caption again")
    return _report(lowered, name, placement, pictures, 2 * products * rows * config.image_length, config.image_length)


def _placement(name: str, mesh: Mapping[str, int] | None) -> Placement:
    return on_mesh(**dict(mesh or {}), devices=devices(name))


def _check_rows(placement: Placement, batch: int) -> None:
    shares = placement.row_shares()
    if batch < 1 or batch % shares:
        raise ValueError(f"a batch of {batch} cannot be shared evenly by data × fsdp = {shares}; take a multiple of it")


def _placed(parameters: nnx.State, placement: Placement) -> nnx.State:
    named, structure = flatten_names(parameters)
    placed = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement.sharding(name, leaf.shape))
        for name, leaf in named.items()
    ]
    return jax.tree.unflatten(structure, placed)


def _report(
    lowered: jax.stages.Lowered, name: str, placement: Placement, batch: int, operations: int, turns: int = 1
) -> Report:
    found = find_slice(name)
    common = {"slice": found, "mesh": dict(placement.mesh.shape), "batch": batch, "operations": operations}
    started = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = next((found for form in TOO_LARGE if (found := re.search(form, str(error)))), None)
        if needed is None:
            raise
        total, capacity = (float(needed[place]) * UNITS[needed[place + 1]] for place in (1, 3))
        return Report(
            arguments=float("nan"),
            temporaries=float("nan"),
            total=total,
            capacity=capacity,
            computing=float("nan"),
            collectives=(),
            compiled_in=time.perf_counter() - started,
            **common,
        )
    memory = compiled.memory_analysis()
    program = Program(compiled.as_text(), turns)
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporaries = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Report(
        arguments=arguments,
        temporaries=temporaries,
        total=arguments + temporaries,
        capacity=found.device.memory,
        computing=program.cycles() / found.chip.clock,
        collectives=tuple(program.collectives()),
        compiled_in=time.perf_counter() - started,
        **common,
    )
