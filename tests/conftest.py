"""What tests of several folders use."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # A test process for each core: more threads of PyTorch than cores would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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
