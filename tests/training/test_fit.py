"""A run survives what happens to runs: kills, Ctrl-C, broken checkpoints, losses that are not numbers."""

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from minidalle.training import TrainingInterrupted, fit, flatten_parameters, load_parameters, log, make_optimizer

STEPS = 60
SCRIPT = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_fit
print("imported", flush=True)
try:
    test_fit.run(sys.argv[1], pause=float(sys.argv[2]))
except test_fit.TrainingInterrupted as stopped:
    print(stopped)
    sys.exit(130)
"""


class Toy(nnx.Module):
    """Two layers, a dropout with its own random stream, and a counter that is no parameter."""

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(4, 16, rngs=rngs)
        self.second = nnx.Linear(16, 1, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=nnx.Rngs(dropout=seed + 1))
        self.seen = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.seen[...] = self.seen[...] + x.shape[0]
        return self.second(self.dropout(jax.nn.gelu(self.first(x))))[:, 0]


def batches(step):
    x = np.random.default_rng([7, step]).normal(size=(8, 4)).astype(np.float32)
    return x, x.sum(axis=1)


def loss_fn(model, batch, key):
    x, y = batch
    noisy = x + 0.01 * jax.random.normal(key, x.shape)
    error = model(noisy) - y
    return jnp.mean(error**2), {"absolute": jnp.mean(jnp.abs(error))}


def evaluate(model):
    x, y = batches(10_000)
    return {"error": float(jnp.mean((model(x) - y) ** 2))}


def run(folder, *, pause=0.0, steps=STEPS, loss=loss_fn, data=batches, **changes):
    def slow(step):
        time.sleep(pause)
        return data(step)

    settings = {"save_every": 5, "log_every": 2, "ema_decay": 0.9, "evaluate_every": 10, "best": ("error", "min")}
    settings.update({"evaluate": evaluate, "progress": False, **changes})
    return fit(loss, Toy(), make_optimizer("adamw", 0.02, steps), slow, steps=steps, run_dir=folder, seed=3, **settings)


def records(folder):
    """The log without the clock."""
    return [{k: v for k, v in r.items() if k != "seconds"} for r in log.read(Path(folder) / "log.jsonl")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder)


def same_weights(one, other):
    return all(np.array_equal(a, flatten_parameters(other)[n]) for n, a in flatten_parameters(one).items())


def start(folder, pause):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(pause)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout.readline() == "imported\n"
    return child


def wait_for_steps(folder, step):
    deadline = time.monotonic() + 600  # a busy machine is no failure
    while time.monotonic() < deadline:
        path = Path(folder) / "log.jsonl"
        if path.exists() and any(record["step"] >= step for record in log.read(path)):
            return
        time.sleep(0.005)
    raise AssertionError(f"the run did not reach step {step}")


def test_training_learns_and_logs_every_step_once(undisturbed):
    folder, model = undisturbed
    losses = [r for r in records(folder) if "loss" in r]
    assert [r["step"] for r in losses] == list(range(2, STEPS + 1, 2))
    assert losses[-1]["loss"] < 0.3 * losses[0]["loss"]
    evaluations = {r["step"]: r["evaluation"]["error"] for r in records(folder) if "evaluation" in r}
    assert list(evaluations) == list(range(10, STEPS + 1, 10))
    assert int(model.seen[...]) == 8 * STEPS


def test_the_callers_model_is_left_as_it_was(tmp_path):
    model = Toy()
    trained = fit(loss_fn, model, optax.sgd(0.1), batches, steps=2, run_dir=tmp_path, progress=False)
    assert same_weights(model, Toy())
    assert not same_weights(model, trained)


def run_with_cache(folder, cache):
    """What a child does: the run, compiled but once for all children, with steps slow enough to be killed between."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    run(folder, pause=0.02)


def test_killed_twenty_times_at_random_moments_the_log_is_bit_identical(undisturbed, tmp_path):
    folder, cache = tmp_path / "run", tmp_path / "cache"
    # A server that has imported everything, but not yet started JAX, forks each child: starting costs no import.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["minidalle.training", "pytest"])
    chance = random.Random(5)
    kills = 0
    for step in sorted(chance.sample(range(1, STEPS - 6), 20)):
        child = server.Process(target=run_with_cache, args=(str(folder), str(cache)))
        child.start()
        wait_for_steps(folder, step)  # reached already by the child before: then this one is killed as it starts
        time.sleep(chance.random() * 0.2)
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
    assert kills == 20
    assert records(folder)[-1]["step"] < STEPS
    model = run(folder)
    assert records(folder) == records(undisturbed[0])
    assert same_weights(model, undisturbed[1])


def save_on_four_devices_and_go_on_with_fewer(folder):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    from minidalle.scale.mesh import on_mesh

    def train(name, steps, mesh):
        settings = {"run_dir": folder / name, "save_every": 50, "log_every": 2, "ema_decay": 0.9, "progress": False}
        placement = on_mesh(**mesh, devices=jax.devices()[: math.prod(mesh.values())]) if mesh else None
        fit(loss_fn, Toy(), make_optimizer("adamw", 0.02, 16), batches, steps=steps, placement=placement, **settings)

    train("whole", 16, None)
    train("two", 8, {"data": 2, "fsdp": 2})
    shutil.copytree(folder / "two", folder / "one")
    train("two", 16, {"data": 1, "fsdp": 2})
    train("one", 16, None)


def test_saved_on_four_devices_a_run_goes_on_with_two_and_with_one(tmp_path):
    child = multiprocessing.get_context("forkserver").Process(
        target=save_on_four_devices_and_go_on_with_fewer, args=(tmp_path,)
    )
    child.start()
    child.join(600)
    assert child.exitcode == 0
    whole = records(tmp_path / "whole")
    assert [record["step"] for record in whole] == list(range(2, 17, 2))
    for name in ("two", "one"):
        for ours, theirs in zip(whole, records(tmp_path / name), strict=True):
            assert theirs == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_says_so_and_the_run_goes_on(undisturbed, tmp_path, number):
    child = start(tmp_path, 0.03)
    wait_for_steps(tmp_path, 6)
    child.send_signal(number)
    said, _ = child.communicate(timeout=600)
    assert child.returncode == 130
    assert "stopped after step" in said and "saved in" in said and "Traceback" not in said
    stopped_at = int(said.split("stopped after step ")[1].split()[0])
    assert (tmp_path / "checkpoints" / str(stopped_at)).is_dir()
    assert not [p for p in tmp_path.rglob("*") if "tmp" in p.name]
    run(tmp_path)
    assert records(tmp_path) == records(undisturbed[0])


# Orbax leaves a reading thread behind when a file under it is broken; Python mentions that at its leisure.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_broken_checkpoint_is_set_aside_and_the_earlier_one_taken(undisturbed, tmp_path, damage):
    run(tmp_path, steps=20)
    latest = tmp_path / "checkpoints" / "20"
    files = sorted((p for p in latest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = [p for p in files if "/d/" in str(p)]  # the arrays' own bytes
    for path in data:
        content = path.read_bytes()
        if damage == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "flipped":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
        else:
            path.unlink()
    assert data
    with pytest.warns(UserWarning, match=r"checkpoint at step 20 cannot be read .*; going on from step 15"):
        run(tmp_path)
    # Steps 16 to 20 come from the resumed run: it is the 60-step schedule from there on.
    assert (tmp_path / "broken-20").is_dir()
    assert [r["step"] for r in records(tmp_path)] == [r["step"] for r in records(undisturbed[0])]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_when_no_checkpoint_can_be_read_it_says_what_to_do(tmp_path):
    run(tmp_path, steps=10)
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file() and "/d/" in str(path):
            path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the checkpoints .* can be read .*resume=False"):
        run(tmp_path, steps=10)
    run(tmp_path, steps=4, resume=False)
    assert [r["step"] for r in records(tmp_path)] == [2, 4, 4]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(tmp_path, steps=4)
    with pytest.raises(ValueError, match="belongs to another model, optimizer or setting"):
        run(tmp_path, steps=8, ema_decay=None)


def test_a_line_cut_short_by_a_kill_is_dropped(undisturbed, tmp_path):
    run(tmp_path, steps=STEPS)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')
    run(tmp_path)
    assert records(tmp_path) == records(undisturbed[0])
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_loss_that_is_not_a_number_stops_with_the_step_and_saves_nothing_of_it(tmp_path):
    def poisoned(step):
        x, y = batches(step)
        return x, y * (np.nan if step == 12 else 1.0)

    with pytest.raises(FloatingPointError, match=r"loss became nan between step 13 and step 14.*learning rate"):
        run(tmp_path, data=poisoned)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()) == [5, 10]


def test_the_best_weights_are_kept_also_across_a_resume(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 5.0])
    weights = []

    def scripted(model):
        weights.append({n: np.array(a) for n, a in flatten_parameters(model).items()})
        return {"error": next(scores)}

    run(tmp_path, steps=20, evaluate=scripted)
    best = run(tmp_path, steps=40, evaluate=scripted)
    assert len(weights) == 4
    assert all(np.array_equal(a, weights[1][n]) for n, a in flatten_parameters(best).items())


def test_the_average_follows_its_formula(tmp_path):
    seen = []

    def sgd_run(ema_decay):
        def remember(model):
            seen.append(np.array(flatten_parameters(model)["first.kernel"]))
            return {}

        folder = tmp_path / str(ema_decay)
        fit(
            loss_fn, Toy(), optax.sgd(0.01), batches, steps=12, run_dir=folder, ema_decay=ema_decay, evaluate=remember,
            evaluate_every=1, progress=False,
        )  # fmt: skip

    sgd_run(None)
    plain, seen = seen, []
    sgd_run(0.5)
    average = np.asarray(flatten_parameters(Toy())["first.kernel"])
    for step, (weights, kept) in enumerate(zip(plain, seen, strict=True)):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
        np.testing.assert_allclose(kept, average, rtol=1e-5, atol=1e-6)


def test_weights_go_into_a_model_only_when_they_fit():
    model, other = Toy(0), Toy(1)
    assert not same_weights(model, other)
    load_parameters(other, {n: np.asarray(a) for n, a in flatten_parameters(model).items()})
    assert same_weights(model, other)
    arrays = dict(flatten_parameters(model))
    arrays["third.kernel"] = arrays.pop("first.kernel")
    with pytest.raises(ValueError, match=r"1 missing \['first.kernel'\], 1 unknown \['third.kernel'\]"):
        load_parameters(other, arrays)
    arrays["first.kernel"] = arrays.pop("third.kernel").T
    with pytest.raises(ValueError, match=r"first.kernel has shape \(16, 4\) but the model expects \(4, 16\)"):
        load_parameters(other, arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"log_every": 0}, "log_every is 0"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"best": ("error", "most")}, "best is"),
        ({"best": ("accuracy", "max"), "evaluate_every": 2}, "'accuracy', but evaluate returns error"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **{"steps": 2, **changes})


def test_an_unwritable_run_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write into the run folder"):
        run(tmp_path / "file" / "run", steps=2)


def test_interrupted_is_a_keyboard_interrupt():
    assert issubclass(TrainingInterrupted, KeyboardInterrupt)
