"""Networks with random weights in no time, and an original checkpoint in its other layout."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def drawn():
    """Fills a network that is built as shapes alone with random numbers of NumPy."""

    def fill(build):
        structure, state = nnx.split(nnx.eval_shape(build))
        generator = np.random.default_rng(0)
        values = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape), x.dtype), state)
        return nnx.merge(structure, values)

    return fill


@pytest.fixture(scope="session")
def unstacked(tmp_path_factory):
    """The same weights one layer at a time, array for array the original's own file of that layout."""
    folder = tmp_path_factory.mktemp("unstacked")
    shutil.copyfile(FIXTURES / "dallebart_mini_noscan" / "config.json", folder / "config.json")
    stacked = serialization.msgpack_restore((FIXTURES / "dallebart_mini_scan" / "flax_model.msgpack").read_bytes())
    for side in ("encoder", "decoder"):
        kind = f"FlaxBart{side.capitalize()}Layer"
        layers = stacked["model"][side]["layers"].pop(f"{kind}s")
        for index in range(2):
            stacked["model"][side]["layers"][f"{kind}_{index}"] = jax.tree.map(lambda x, i=index: x[i], layers)
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(stacked))
    return folder
