"""The loop: a compiled step over `{name: array}`, and everything a run needs to survive being killed.

Batch and randomness of step t are functions of the seed and of t alone, and everything else that a step reads stands in
the checkpoint. So a run that is killed and resumed writes the same log, bit for bit, as one that was left alone.
"""

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from tqdm.auto import tqdm

from minidalle.training import log
from minidalle.training.checkpoints import Checkpoints
from minidalle.training.placement import Placement
from minidalle.training.processes import any_stops, leads, wait_for_all
from minidalle.training.step import LossFunction, Step
from minidalle.training.tree import flatten_names


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped a run after its checkpoint was saved; the message says how to go on."""


def fit(
    loss_fn: LossFunction,
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    batches: Callable[[int], Any],
    *,
    steps: int,
    run_dir: str | Path,
    seed: int = 0,
    save_every: int = 500,
    log_every: int = 50,
    ema_decay: float | None = None,
    evaluate: Callable[[nnx.Module], dict[str, float]] | None = None,
    evaluate_every: int = 500,
    best: tuple[str, Literal["max", "min"]] | None = None,
    progress: bool = True,
    resume: bool = True,
    placement: Placement | None = None,
) -> nnx.Module:
    """Train a model and return it: the best by `best`, else the averaged weights (`ema_decay`), else the last ones.

    loss_fn(model, batch, key) -> (loss, metrics): scalars; the key is `fold_in(key(seed), step)`. Parameters are the
        model's `nnx.Param`; other variables that loss_fn changes are carried along. The given model stays as it was.
    batches(step) -> batch: any tree of arrays, for step 0, 1, …; it must depend on the step only (and on a seed of its
        own). It is called one step ahead, in another thread, while the step before is computed.
    steps: how many batches. run_dir: gets `log.jsonl` and `checkpoints/` (two are kept).
    log_every: every so many steps a line `{"step", "loss", …metrics, "seconds"}` with means since the last line.
    ema_decay: averaged weights, with decay min(ema_decay, (1 + t) / (10 + t)) after update t (as in TensorFlow's EMA).
    evaluate(model) -> floats: called with the averaged (else the present) weights every `evaluate_every` steps and after
        the last, on weights that are gone with the next step; logged as `{"step", "evaluation": {…}}`. best: the key of that dictionary to choose weights by.
    resume: go on from the latest checkpoint in run_dir; False deletes the checkpoints and the log that stand there.
    placement: where weights, moments and rows live on several devices, as `scale.mesh.on_mesh` makes it; None computes on
        one. With several processes, each calls `fit` alike; `batches` gives the rows of its own
        (`placement.share`), the first writes the log, and models that are evaluated or returned are whole on each.

    Raises TrainingInterrupted after Ctrl-C or SIGTERM, with everything saved; FloatingPointError when the loss is not
    finite (found at the next log line or checkpoint; no such weights are saved); ValueError for settings that make no
    sense and for a checkpoint of another model.
    """
    for name, value in (("steps", steps), ("save_every", save_every), ("log_every", log_every)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    if best is not None and (evaluate is None or best[1] not in ("max", "min")):
        raise ValueError(f'best is {best!r}; expected ("name of a metric", "max" or "min"), together with evaluate')
    if evaluate is not None and evaluate_every < 1:
        raise ValueError(f"evaluate_every is {evaluate_every}; expected 1 or more")
    if ema_decay is not None and not 0 < ema_decay < 1:
        raise ValueError(f"ema_decay is {ema_decay}; expected a number between 0 and 1, or None")

    run_dir = Path(run_dir).absolute()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot write into the run folder {run_dir}: {error.strerror}; choose another run_dir"
        ) from error
    if not resume and leads():
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
    wait_for_all("a fresh run folder")
    log_path = run_dir / "log.jsonl"
    checkpoints = Checkpoints(run_dir / "checkpoints")

    if placement is not None:
        batches = _placed(batches, placement)
    take_step = Step(loss_fn, model, optimizer, batches(0), seed=seed, ema_decay=ema_decay, placement=placement)
    state = take_step.start()
    zeros = jax.tree.map(jnp.copy, state["sums"])
    if best is not None:
        state["best"] = jax.tree.map(jnp.copy, state["parameters"])
    values: dict[str, Any] = {"seconds": 0.0, "counted": 0, "best_score": None, "best_step": None}

    start = 0
    names, structure = flatten_names(state)
    found = checkpoints.restore(names)
    if found is not None:
        start, arrays, values = found
        state = jax.tree.unflatten(structure, [arrays[name] for name in names])
    if leads():
        log.truncate(log_path, start)

    best_weights = state.pop("best", None)
    began = time.perf_counter() - values["seconds"]
    bar = tqdm(
        total=steps,
        initial=min(start, steps),
        disable=not (progress and leads()),
        desc=run_dir.name,
        dynamic_ncols=True,
    )

    def evaluated_weights() -> dict[str, jax.Array]:
        return state["average"] if ema_decay is not None else state["parameters"]

    def whole(parameters: dict[str, jax.Array]) -> nnx.Module:
        module = take_step.assemble(parameters, state["others"])
        return module if placement is None else placement.gather(module)

    def check_finite(step: int) -> dict[str, float]:
        means = {name: float(total) / values["counted"] for name, total in state["sums"].items()}
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"the loss became {means['loss']} between step {step - values['counted'] + 1} and step {step}; nothing "
                f"of it was saved. Lower the learning rate, clip gradients, or look at these batches; "
                f"the checkpoints before it are in {checkpoints.folder}"
            )
        return means

    def write_log(record: dict[str, Any]) -> None:
        if leads():
            log.append(log_path, record)

    def save(step: int) -> None:
        if values["counted"]:
            check_finite(step)
        values["seconds"] = time.perf_counter() - began
        saved = state if best_weights is None else {**state, "best": best_weights}
        checkpoints.save(step, flatten_names(saved)[0], values)

    try:
        with stop_signals() as stop, _ahead(batches, start, steps) as following, bar:
            for step in range(start + 1, steps + 1):
                state = take_step(state, next(following))
                values["counted"] += 1
                bar.update()
                if step % log_every == 0 or step == steps:
                    means = check_finite(step)
                    seconds = round(time.perf_counter() - began, 3)
                    write_log({"step": step, **means, "seconds": seconds})
                    bar.set_postfix({name: f"{mean:.4g}" for name, mean in means.items()})
                    state["sums"], values["counted"] = jax.tree.map(jnp.copy, zeros), 0
                if evaluate is not None and (step % evaluate_every == 0 or step == steps):
                    scores = {name: float(value) for name, value in evaluate(whole(evaluated_weights())).items()}
                    write_log({"step": step, "evaluation": scores})
                    if best is not None and _is_better(scores, best, values["best_score"]):
                        values["best_score"], values["best_step"] = scores[best[0]], step
                        best_weights = jax.tree.map(jnp.copy, evaluated_weights())
                stopping = any_stops(stop.is_set(), meeting=step % log_every == 0)
                if step % save_every == 0 or step == steps or stopping:
                    save(step)
                if stopping and step < steps:
                    checkpoints.wait()
                    raise TrainingInterrupted(
                        f"stopped after step {step} of {steps}; saved in {checkpoints.folder}. "
                        "The same command goes on from there."
                    )
    finally:
        checkpoints.close()
    chosen = best_weights if best is not None and values["best_score"] is not None else evaluated_weights()
    return whole(chosen)


def _is_better(scores: dict[str, float], best: tuple[str, str], so_far: float | None) -> bool:
    if best[0] not in scores:
        raise ValueError(f"best names the metric {best[0]!r}, but evaluate returns {', '.join(scores) or 'nothing'}")
    score = scores[best[0]]
    if so_far is None:
        return math.isfinite(score)
    return score > so_far if best[1] == "max" else score < so_far


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C stops at once. Elsewhere than in the main thread: never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def set_stop(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, earlier[number])

    for number in earlier:
        signal.signal(number, set_stop)
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _placed(batches: Callable[[int], Any], placement: Placement) -> Callable[[int], Any]:
    return lambda step: placement.put_rows(batches(step))


@contextmanager
def _ahead(batches: Callable[[int], Any], start: int, steps: int) -> Iterator[Iterator[Any]]:
    """The batches of steps start … steps−1, each prepared in a thread while the one before is used."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:

        def iterate() -> Iterator[Any]:
            coming = pool.submit(batches, start) if start < steps else None
            for step in range(start, steps):
                batch = coming.result()
                coming = pool.submit(batches, step + 1) if step + 1 < steps else None
                yield batch

        yield iterate()
