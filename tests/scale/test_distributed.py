"""Two processes of two devices each learn what one process with four does."""

import os
import signal
import socket
import subprocess
import sys
import time
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

# Many short steps, of which it may be asked to stop.
LONG = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_distributed import Toy, batches, loss
from minidalle.scale import distributed
from minidalle.scale.mesh import on_mesh
from minidalle.training import TrainingInterrupted, fit, make_optimizer
if len(sys.argv) > 3:
    distributed.initialize()
placement = on_mesh()
mine = placement.share(batches)
def slowly(step):
    time.sleep(0.1 * (len(sys.argv) > 3))
    return mine(step)
try:
    fit(
        loss, Toy(), make_optimizer("adamw", 0.02, 60), slowly, steps=60, run_dir=sys.argv[2], log_every=2,
        save_every=1000, placement=placement, progress=False,
    )
except TrainingInterrupted as stopped:
    print(stopped)
    sys.exit(130)
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


def start(folder, devices, *arguments, program=RUN, **environment):
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(folder), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **SETTINGS, "JAX_NUM_CPU_DEVICES": str(devices), **environment},
    )  # fmt: skip


def start_two(folder, program=RUN):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = [dict(zip(distributed.VARIABLES, (f"127.0.0.1:{port}", "2", process), strict=True)) for process in "01"]
    return [start(folder, 2, "distributed", program=program, **each) for each in variables]


def finish(children, code=0):
    """What each has said, once all have ended with this code."""
    said = []
    try:
        for child in children:
            out, error = child.communicate(timeout=900)
            assert child.returncode == code, error
            said.append(out)
    finally:
        for child in children:
            child.kill()
    return said


def numbers(said):
    return [[float(number) for number in out.splitlines()[-1].split()] for out in said]


def losses(folder):
    return {record["step"]: record["loss"] for record in log.read(folder / "log.jsonl") if "loss" in record}


def test_two_processes_learn_what_one_does(tmp_path):
    (one,) = numbers(finish([start(tmp_path / "one", 4)]))
    two = numbers(finish(start_two(tmp_path / "two")))
    assert two[0] == two[1]
    assert two[0] == pytest.approx(one, rel=1e-5)
    by_one, by_two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert list(by_one) == [1, 2]
    assert by_two == pytest.approx(by_one, rel=1e-5)
    assert len(log.read(tmp_path / "two" / "log.jsonl")) == len(log.read(tmp_path / "one" / "log.jsonl"))
    assert one[1] == pytest.approx(np.mean(list(by_one.values())), rel=1e-5)  # on the other mesh, too


def test_all_stop_at_one_step_when_one_of_them_is_to_go_and_another_number_goes_on(tmp_path):
    children = start_two(tmp_path / "stopped", LONG)
    until = time.monotonic() + 600
    while not (tmp_path / "stopped" / "log.jsonl").exists() or len(losses(tmp_path / "stopped")) < 2:
        assert time.monotonic() < until and all(child.poll() is None for child in children)
        time.sleep(0.05)
    children[1].send_signal(signal.SIGTERM)  # the other hears of it by the next line of the log
    said = [out.splitlines()[-1] for out in finish(children, 130)]
    assert said[0] == said[1]
    step = int(said[0].split("stopped after step ")[1].split()[0])
    assert 4 <= step < 60
    assert (tmp_path / "stopped" / "checkpoints" / str(step)).is_dir()
    finish([start(tmp_path / "stopped", 2, program=LONG), start(tmp_path / "whole", 4, program=LONG)])
    assert len(losses(tmp_path / "whole")) == 30
    assert losses(tmp_path / "stopped") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_half_an_address_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="give all three, or none"):
        distributed.initialize("10.0.0.1:1234")
    monkeypatch.setenv("MINIDALLE_PROCESSES", "two")
    with pytest.raises(ValueError, match=r"MINIDALLE_PROCESSES is 'two' .*expected numbers"):
        distributed.initialize()
