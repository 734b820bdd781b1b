"""Two processes of two devices each learn what one process with four does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from minidalle.scale import distributed
from minidalle.training import log

SETTINGS = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
RUN = """
import sys, jax, numpy as np
sys.path.insert(0, sys.argv[1])
from test_distributed import Toy, batches, loss
from minidalle.scale import distributed
from minidalle.scale.mesh import on_mesh
from minidalle.training import fit, flatten_parameters, make_optimizer
from minidalle.training.step import Step
if len(sys.argv) > 3:
    distributed.initialize()
assert jax.device_count() == 4
placement = on_mesh()
model = fit(
    loss, Toy(), make_optimizer("adamw", 0.02, 2), placement.share(batches), steps=2, run_dir=sys.argv[2], log_every=1,
    placement=placement, progress=False, evaluate=lambda model: {"head": float(model.output.kernel[...].sum())},
)
total = sum(float(np.abs(array).sum()) for array in flatten_parameters(model).values())
placement = on_mesh(fsdp=2, model=2)  # each process has half of every matrix only
first = placement.put_rows(placement.share(batches)(0))
step = Step(loss, Toy(), make_optimizer("adamw", 0.02, 2), first, placement=placement)
state = step(step.start(), first)
state = step(state, placement.put_rows(placement.share(batches)(1)))
print(total, float(state["sums"]["loss"]) / 2)
"""


class Toy(nnx.Module):
    """Two layers that the table of rules knows."""

    def __init__(self):
        self.query = nnx.Linear(8, 16, rngs=nnx.Rngs(0))
        self.output = nnx.Linear(16, 4, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.output(jax.nn.gelu(self.query(x)))


def batches(step):
    return np.random.default_rng(step).normal(size=(8, 8)).astype(np.float32)


def loss(model, batch, key):
    noisy = batch + 0.1 * jax.random.normal(key, batch.shape)
    return jnp.mean((model(noisy) - batch[:, :4]) ** 2), {}


def start(folder, devices, *arguments, **environment):
    command = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(folder), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **SETTINGS, "JAX_NUM_CPU_DEVICES": str(devices), **environment},
    )  # fmt: skip


def finish(children):
    said = []
    try:
        for child in children:
            out, error = child.communicate(timeout=900)
            assert child.returncode == 0, error
            said.append([float(number) for number in out.splitlines()[-1].split()])
    finally:
        for child in children:
            child.kill()
    return said


def test_two_processes_learn_what_one_does(tmp_path):
    (one,) = finish([start(tmp_path / "one", 4)])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = distributed.VARIABLES
    children = [
        start(tmp_path / "two", 2, "distributed", **dict(zip(names, (f"127.0.0.1:{port}", "2", process), strict=True)))
        for process in "01"
    ]
    two = finish(children)
    assert two[0] == two[1]
    assert two[0] == pytest.approx(one, rel=1e-5)
    records = [log.read(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    losses = [[record["loss"] for record in each if "loss" in record] for each in records]
    assert len(losses[0]) == len(losses[1]) == 2  # the second process has written nothing
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert one[1] == pytest.approx(np.mean(losses[0]), rel=1e-5)  # on the other mesh, too


def test_half_an_address_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="give all three, or none"):
        distributed.initialize("10.0.0.1:1234")
    monkeypatch.setenv("MINIDALLE_PROCESSES", "two")
    with pytest.raises(ValueError, match=r"MINIDALLE_PROCESSES is 'two' .*expected numbers"):
        distributed.initialize()
