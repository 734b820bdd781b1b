"""What runs here: versions and devices, for the first cell of every chapter."""

import os
import platform
import sys

import minidalle
from minidalle.scale.quiet import quieten_libtpu

HOW_TO_SWITCH = {
    "Colab": "No GPU here. Runtime → Change runtime type → T4 GPU, then run this cell again.",
    "Paperspace": "No GPU here. Stop the machine, choose a GPU machine (Free-GPU) in the left panel, and start it again.",
}


def about() -> None:
    """Print the versions and devices in two lines, and how to get a GPU on Colab or Paperspace when there is none.

    This starts JAX: a setting such as `jax_num_cpu_devices` must be made before.
    """
    quieten_libtpu()
    jax_line, jax_fast = _jax()
    torch_line, torch_fast = _torch()
    print(f"minidalle {minidalle.__version__} · Python {platform.python_version()} · {os.cpu_count()} CPU cores")
    print(f"{jax_line} · {torch_line}")
    where = hosted_on()
    if where and not (jax_fast or torch_fast):
        print(HOW_TO_SWITCH[where])


def hosted_on() -> str | None:
    """`"Colab"`, `"Paperspace"`, or None anywhere else."""
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return "Colab"
    if any(name.startswith("PAPERSPACE_") for name in os.environ):
        return "Paperspace"
    return None


def _jax() -> tuple[str, bool]:
    try:
        import jax

        devices = jax.devices()
    except Exception as error:  # a broken CUDA installation raises many kinds; the chapter should still say which
        return f"JAX does not start ({type(error).__name__}: {str(error).splitlines()[0]})", False
    kind = devices[0].device_kind
    name = "CPU" if devices[0].platform == "cpu" else kind
    return f"JAX {jax.__version__} on {_times(len(devices), name)}", devices[0].platform != "cpu"


def _torch() -> tuple[str, bool]:
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed", False
    version = torch.__version__.split("+")[0]
    if torch.cuda.is_available():
        return f"PyTorch {version} on {_times(torch.cuda.device_count(), torch.cuda.get_device_name(0))}", True
    if torch.backends.mps.is_available():
        return f"PyTorch {version} on Apple GPU", True
    return f"PyTorch {version} on CPU", False


def _times(count: int, name: str) -> str:
    return name if count == 1 else f"{count} × {name}"
