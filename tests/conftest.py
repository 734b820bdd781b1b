"""What tests of several folders use."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def forget_compiled():
    """Give back what a file's tests compiled: each program holds memory maps, of which Linux allows a process 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def quickly_compiled():
    """Full float32 products also on a GPU, and little time for the compiler: test networks are tiny and many."""
    unoptimised = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.default_matmul_precision("highest"):
        yield
    jax.config.update("jax_disable_most_optimizations", unoptimised)
