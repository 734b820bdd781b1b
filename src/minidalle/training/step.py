"""One step of training as one compiled function over `{name: array}`: what `fit` repeats, and what can be lowered alone."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from minidalle.training.placement import Placement, move
from minidalle.training.tree import flatten_names

LossFunction = Callable[[nnx.Module, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
State = dict[str, Any]


class Step:
    """Loss, gradients, update and average of a model, compiled: `state = step(state, batch)`.

    The state is a dictionary: `parameters` and `others` (the model's variables that are no `nnx.Param`), both
    `{name: array}`; `optimizer`; `sums` of the loss and the metrics so far; `step`, counted from 0; and `average` with
    `ema_decay`. A call donates the state that it is given.

    Args:
        loss_fn, optimizer, seed, ema_decay: as for `fit`.
        model: an NNX module, or an abstract one (`nnx.eval_shape`), with which all but `start` can be done.
        batch: an example, or the same tree of `jax.ShapeDtypeStruct`s; with several processes of the *whole* batch.
        placement: where arrays live when there are several devices; None is one device.

    Attributes:
        shapes: the state as `jax.ShapeDtypeStruct`s, with shardings where there is a placement.
        batch: the batch likewise.
    """

    def __init__(
        self,
        loss_fn: LossFunction,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        batch: Any,
        *,
        seed: int = 0,
        ema_decay: float | None = None,
        placement: Placement | None = None,
    ):
        self.loss_fn, self.optimizer, self.ema_decay, self.placement = loss_fn, optimizer, ema_decay, placement
        self._key = jax.random.key(seed)
        self._graph, parameters, others = nnx.split(model, nnx.Param, ...)
        self._parameters, self._parameter_structure = flatten_names(parameters)
        self._others, self._other_structure = flatten_names(others)
        metrics = jax.eval_shape(self._compute, self._parameters, self._others, batch, self._key)[1][0]
        self._metrics = list(metrics)
        self.shapes = jax.eval_shape(self._first, self._parameters, self._others)
        self.batch = jax.eval_shape(lambda batch: batch, batch)
        shardings = None
        if placement is not None:
            shardings = placement.shardings(self.shapes, self._parameters)
            self.shapes = _with_shardings(self.shapes, shardings)
            self.batch = _with_shardings(self.batch, placement.rows(self.batch))
        self._jitted = jax.jit(self._once, donate_argnums=0, out_shardings=shardings)

    def __call__(self, state: State, batch: Any) -> State:
        """The state after this batch."""
        with self._mesh():
            return self._jitted(state, batch)

    def lower(self) -> jax.stages.Lowered:
        """The step for its shapes, not run: `.compile()` tells its memory and operations, on any mesh, real or described."""
        with self._mesh():
            return self._jitted.lower(self.shapes, self.batch)

    def _mesh(self) -> Any:
        """What tells `by_rows` the mesh."""
        return nullcontext() if self.placement is None else jax.set_mesh(self.placement.mesh)

    def start(self) -> State:
        """The state before the first batch; copies, so that the model stays alive when they are donated."""
        if self.placement is None:
            return self._first(*jax.tree.map(jnp.copy, (self._parameters, self._others)))
        placed = jax.tree.map(
            lambda array, shape: move(array, shape.sharding),
            (self._parameters, self._others),
            (self.shapes["parameters"], self.shapes["others"]),
        )

        def first(*variables: dict[str, jax.Array]) -> State:
            return self._first(*jax.tree.map(jnp.copy, variables))

        # In one compiled function, so that no moment is ever whole on a device that is to have a part of it.
        return jax.jit(first, out_shardings=jax.tree.map(lambda shape: shape.sharding, self.shapes))(*placed)

    def assemble(self, parameters: dict[str, jax.Array], others: dict[str, jax.Array]) -> nnx.Module:
        """The model with these variables."""
        # By name, since a dictionary that has gone through jax comes back sorted.
        return nnx.merge(
            self._graph,
            jax.tree.unflatten(self._parameter_structure, [parameters[name] for name in self._parameters]),
            jax.tree.unflatten(self._other_structure, [others[name] for name in self._others]),
        )

    def _first(self, parameters: dict[str, jax.Array], others: dict[str, jax.Array]) -> State:
        state: State = {
            "parameters": parameters,
            "others": others,
            "optimizer": self.optimizer.init(parameters),
            "sums": {name: jnp.zeros(()) for name in ("loss", *self._metrics)},
            "step": jnp.zeros((), jnp.int32),
        }
        if self.ema_decay is not None:
            state["average"] = jax.tree.map(jnp.copy, parameters)
        return state

    def _compute(
        self, parameters: dict[str, jax.Array], others: dict[str, jax.Array], batch: Any, key: jax.Array
    ) -> Any:
        if self.placement is not None:
            parameters = self.placement.gather_tables(parameters)
        module = self.assemble(parameters, others)
        loss, metrics = self.loss_fn(module, batch, key)
        return loss, (metrics, flatten_names(nnx.state(module, nnx.Not(nnx.Param)))[0])

    def _once(self, state: State, batch: Any) -> State:
        step_key = jax.random.fold_in(self._key, state["step"])
        (loss, (metrics, others)), gradients = jax.value_and_grad(self._compute, has_aux=True)(
            state["parameters"], state["others"], batch, step_key
        )
        updates, optimizer_state = self.optimizer.update(gradients, state["optimizer"], state["parameters"])
        parameters = optax.apply_updates(state["parameters"], updates)
        new = {**state, "parameters": parameters, "others": others, "optimizer": optimizer_state}
        if self.ema_decay is not None:
            new["average"] = _averaged(state["average"], parameters, self.ema_decay, state["step"], optimizer_state)
        new["sums"] = jax.tree.map(jnp.add, state["sums"], {"loss": loss.astype(jnp.float32), **_float32(metrics)})
        new["step"] = state["step"] + 1
        return new


def _with_shardings(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding), shapes, shardings
    )


def _averaged(average: Any, parameters: Any, decay: float, step: jax.Array, optimizer_state: Any) -> Any:
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    if isinstance(optimizer_state, optax.MultiStepsState):
        # Between two updates of an accumulated batch the weights stand still, and so does their average.
        rate = jnp.where(optimizer_state.mini_step == 0, rate, 0.0)
    return jax.tree.map(lambda a, p: a + (rate * (p - a)).astype(a.dtype), average, parameters)


def _float32(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
