"""The optimizers follow their schedules, decay matrices only, and average what they accumulate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from minidalle.training import learning_rate_schedule, make_optimizer
from minidalle.training.optimizer import OPTIMIZERS, is_matrix, muon_dimensions

STACKED = {
    "layers.query.kernel": jnp.ones((3, 4, 4)),
    "layers.query.bias": jnp.ones((3, 4)),
    "layers.norm.scale": jnp.ones((3, 4)),
    "token_embedding.embedding": jnp.ones((7, 4)),
    "logit_scale": jnp.ones(()),
}


def test_the_schedule_warms_up_peaks_and_ends_at_zero():
    rate = learning_rate_schedule(2.0, 100, 10)
    values = np.array([float(rate(t)) for t in range(101)])
    assert values[0] == pytest.approx(0.2) and values[9] == pytest.approx(2.0) and values.argmax() in (9, 10)
    assert values[100] == pytest.approx(0.0, abs=1e-6)
    assert values[55] == pytest.approx(1.0, abs=1e-6)  # half of the cosine's way: half of the peak
    assert (np.diff(values[10:]) <= 0).all()


def test_only_matrices_decay_although_layers_are_stacked():
    assert is_matrix(STACKED) == {
        "layers.query.kernel": True, "layers.query.bias": False, "layers.norm.scale": False,
        "token_embedding.embedding": True, "logit_scale": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_gradients_matrices_shrink_by_the_decay_and_vectors_stay(name):
    optimizer = make_optimizer(name, 0.1, 10, weight_decay=0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, STACKED), optimizer.init(STACKED), STACKED)
    new = optax.apply_updates(STACKED, updates)
    np.testing.assert_allclose(new["layers.query.kernel"], 1 - 0.1 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(new["token_embedding.embedding"], 1 - 0.1 * 0.5, rtol=1e-5)
    for vector in ("layers.query.bias", "layers.norm.scale", "logit_scale"):
        np.testing.assert_allclose(new[vector], 1.0, rtol=1e-6)


def test_muon_takes_the_matrix_of_each_layer_and_leaves_the_rest():
    dimensions = muon_dimensions(STACKED)
    kernel = dimensions.pop("layers.query.kernel")
    assert (kernel.reduction_axis, kernel.output_axis) == (1, 2)
    assert set(dimensions.values()) == {None}


def test_muon_makes_each_layers_update_orthogonal():
    optimizer = make_optimizer("muon", 1.0, 10, clip_norm=None)
    gradients = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape), STACKED)
    updates, _ = optimizer.update(gradients, optimizer.init(STACKED), STACKED)
    singular = np.linalg.svd(np.asarray(updates["layers.query.kernel"]), compute_uv=False)  # (layers, 4)
    # The Newton–Schulz iteration brings singular values near 1, not to 1; the gradient's own spread over a factor 10.
    assert singular.max() / singular.min() < 2.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_quadratic_is_minimised(name):
    target = jax.random.normal(jax.random.key(1), (6, 6))
    optimizer = make_optimizer(name, 0.05, 300, warmup_steps=10)
    weights = {"dense.kernel": jnp.zeros((6, 6)), "dense.bias": jnp.zeros(6)}

    def loss(w):
        return jnp.mean((w["dense.kernel"] - target) ** 2) + jnp.mean((w["dense.bias"] - 1) ** 2)

    @jax.jit
    def step(w, state):
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        return optax.apply_updates(w, updates), state

    state, first = optimizer.init(weights), float(loss(weights))
    for _ in range(300):
        weights, state = step(weights, state)
    assert float(loss(weights)) < 0.01 * first


def test_accumulated_batches_equal_the_big_batch():
    data = jax.random.normal(jax.random.key(2), (8, 5))
    weights = {"dense.kernel": jnp.ones((5, 1))}

    def train(batch_size, accumulate, steps):
        optimizer = make_optimizer("adamw", 0.1, steps, warmup_steps=accumulate, accumulate=accumulate)

        @jax.jit
        def update(w, state, rows):
            gradients = jax.grad(lambda w: jnp.mean((rows @ w["dense.kernel"]) ** 2))(w)
            updates, state = optimizer.update(gradients, state, w)
            return optax.apply_updates(w, updates), state

        w, state = weights, optimizer.init(weights)
        for step in range(steps):
            w, state = update(w, state, data[(step * batch_size) % 8 :][:batch_size])
        return np.asarray(w["dense.kernel"])

    whole = train(8, 1, 6)
    np.testing.assert_allclose(train(2, 4, 24), whole, rtol=1e-5)
    assert np.abs(whole - 1).max() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "sgd"}, "unknown optimizer 'sgd'; expected one of adamw"),
        ({"warmup_steps": 11}, "expected 0 <= warmup_steps <= steps"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"learning_rate": -1.0}, "learning_rate -1.0"),
        ({"clip_norm": 0.0}, "clip_norm 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(**{"name": "adamw", "learning_rate": 0.1, "steps": 10, **arguments})
