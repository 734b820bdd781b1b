"""What training on a device takes: by arithmetic for any device, by the compiler besides for TPUs."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..bart.config import DalleBartConfig
from . import cost
from .slices import find_slice, slice_names


def estimate(
    config: DalleBartConfig,
    on: str,
    batch: int,
    *,
    mesh: Mapping[str, int] | None = None,
    optimizer: str = "adamw",
    compiled: bool = True,
) -> dict[str, Any]:
    """Memory, time and price of a training step in bfloat16, as plain values.

    Args:
        config: the DalleBart's.
        on: a name of `cost.DEVICES`, or of a TPU slice.
        batch: pictures a step, on all devices together.
        mesh: devices along "data", "fsdp" and "model"; TPU slices only.
        optimizer: one of `minidalle.training.optimizer.OPTIMIZERS`.
        compiled: for TPU slices, also compile the step, which takes minutes for large models; without libtpu that is left out.

    Returns:
        `on`, `devices`, `batch`, `mesh`, `optimizer`, `parameters`; `operations` needed in a step, `memory` in bytes of each
        device as `cost.TrainingMemory` has it (weights cut over "fsdp" and "model", rows over "data" and "fsdp"), with
        `peak`, `capacity` and `fits`; `roofline` seconds, which ignore communication; `compiled`, what the compiler says, or
        None; `unknown`, what is not known and why, or None; `dollars` for a million pictures by the best known time, on
        demand and spot, or None where no price or time is known.

    Raises:
        ValueError: the device is unknown, the mesh does not fit it, the batch cannot be shared evenly, or is below 1.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1 picture, got {batch}")
    gpu = next((name for name in cost.DEVICES if _plain(on) in (_plain(name), _plain(name.split()[0]))), None)
    if gpu is not None:
        if mesh:
            raise ValueError(f"{gpu} is one device here, so there is no mesh to choose; leave --mesh out")
        found, device, count, axes = None, cost.DEVICES[gpu], 1, {}
    else:
        try:
            found = find_slice(on)
        except ValueError as error:
            raise ValueError(
                f"no device {on!r} is known here; GPUs are {', '.join(cost.DEVICES)}; TPU slices {', '.join(slice_names())}"
            ) from error
        device, count, axes = found.device, found.devices, _axes(found.devices, mesh)
    parts, shares = axes.get("fsdp", 1) * axes.get("model", 1), axes.get("data", 1) * axes.get("fsdp", 1)
    if batch % shares:
        raise ValueError(f"a batch of {batch} cannot be shared evenly by data × fsdp = {shares}; take a multiple of it")
    memory = {
        name: size // (parts if name in ("weights", "gradients", "optimizer") else 1)
        for name, size in asdict(cost.training_memory(config, batch // shares, optimizer=optimizer)).items()
    }
    memory["peak"] = sum(memory.values())
    operations = cost.training_operations(config, batch)
    done = cost.training_operations(config, batch, recomputing=config.gradient_checkpointing)
    update = cost.training_seconds(config, batch, device, optimizer=optimizer)["updating"] / parts
    roofline = {"computing": done / (count * device.half), "updating": update}
    roofline["all"] = sum(roofline.values())
    result = {
        "on": gpu or found.name,
        "devices": count,
        "batch": batch,
        "mesh": axes,
        "optimizer": optimizer,
        "parameters": cost.dallebart_parameters(config),
        "operations": operations,
        "memory": {**memory, "capacity": int(device.memory), "fits": memory["peak"] <= device.memory},
        "roofline": roofline,
        "compiled": None,
        "unknown": "the time of a real step and the memory of a real program: only TPU slices are compiled for here",
        "dollars": None,
    }
    if found is not None:
        result.update(_compiled(config, found.name, batch, axes, optimizer, compiled))
        seconds = result["compiled"]["seconds"] if result["compiled"] else roofline["all"]
        if seconds is not None:
            hours = seconds / batch * 1e6 / 3600
            result["dollars"] = {name: found.dollars(hours, spot=name == "spot") for name in ("on demand", "spot")}
    return result


def _compiled(
    config: DalleBartConfig, name: str, batch: int, axes: dict[str, int], optimizer: str, wanted: bool
) -> dict[str, Any]:
    if not wanted or importlib.util.find_spec("libtpu") is None:
        why = "it was not asked for" if not wanted else 'libtpu is missing (pip install "jax[tpu]")'
        unknown = f"the compiler's memory, its time, and what devices send to each other: {why}"
        return {"compiled": None, "unknown": unknown}
    from .tpu import compile_training

    report = compile_training(config, name, batch, mesh=axes, optimizer=optimizer)
    # NaN is no JSON.
    told = {key: None if value != value else value for key, value in report.told().items()}
    unknown = None if report.fits else "the compiler's time: it gives up on what does not fit"
    return {"compiled": told, "unknown": unknown}


def _axes(devices: int, mesh: Mapping[str, int] | None) -> dict[str, int]:
    axes = {"data": 0, "fsdp": 1, "model": 1, **(mesh or {})}
    unknown = sorted(set(axes) - {"data", "fsdp", "model"})
    if unknown:
        raise ValueError(f"a mesh has no axis {unknown[0]!r}; it has data, fsdp and model")
    axes["data"] = axes["data"] or max(1, devices // max(1, axes["fsdp"] * axes["model"]))
    if min(axes.values()) < 1 or axes["data"] * axes["fsdp"] * axes["model"] != devices:
        product = " × ".join(f"{axis}={count}" for axis, count in axes.items())
        raise ValueError(f"a mesh of {product} does not fit {devices} devices; their product must be that number")
    return axes


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "")


def in_words(result: Mapping[str, Any]) -> str:
    """What `estimate` gives, for people."""
    memory, roofline, compiled = result["memory"], result["roofline"], result["compiled"]
    mesh = " × ".join(f"{axis}={count}" for axis, count in result["mesh"].items())
    gib = {name: f"{size / 2**30:.1f}" for name, size in memory.items()}
    lines = [
        f"{result['parameters']:,} parameters, {result['operations'] / result['batch'] / 1e9:,.0f} GFLOP a picture",
        f"on {result['on']}: {result['devices']} device{'s' * (result['devices'] > 1)}{f', {mesh}' if mesh else ''}; "
        f"{result['batch']} pictures a step, {result['optimizer']}, bfloat16",
        "",
        "by arithmetic, for each device",
        f"  memory   {gib['peak']} of {gib['capacity']} GiB, {'fits' if memory['fits'] else 'does not fit'}: weights "
        f"{gib['weights']}, gradients {gib['gradients']}, optimizer {gib['optimizer']}, kept {gib['kept']}, working {gib['working']}",
        f"  a step   at least {roofline['all']:.3g} s: {roofline['computing']:.3g} to compute at the data sheet's peak, "
        f"{roofline['updating']:.3g} to update",
    ]
    if compiled:
        lines += [
            "",
            "by the compiler, for each device",
            f"  memory   {compiled['total'] / 2**30:.1f} of {compiled['capacity'] / 2**30:.1f} GiB, "
            f"{'fits' if compiled['fits'] else 'does not fit'}",
        ]
    if compiled and compiled["fits"]:
        lines += [
            f"  of it    arguments {compiled['arguments'] / 2**30:.1f}, temporaries {compiled['temporaries'] / 2**30:.1f}",
            f"  a step   {compiled['seconds']:.3g} s: {compiled['computing']:.3g} to compute, "
            f"{compiled['communicating']:.3g} to send; {100 * compiled['utilisation']:.0f} % of the peak",
        ]
        for each in compiled["collectives"]:
            lines.append(
                f"  sends    {each['sent'] / 1e6:,.1f} MB in {each['times']} {each['kind']} among {each['devices']} devices"
            )
    if result["unknown"]:
        lines += ["", f"not known: {result['unknown']}"]
    if result["dollars"]:
        on_demand, spot = result["dollars"]["on demand"], result["dollars"]["spot"]
        basis = "the compiler's seconds" if compiled else "the least seconds"
        lines += [
            "",
            f"a million pictures by {basis}: {on_demand:,.2f} US dollars on demand, {spot:,.2f} on spot machines",
        ]
    return "\n".join(lines)
