"""The Ray engine of `minidalle encode`: readers that decode and encoders that encode, on one machine or on many.

Ray Data streams: a reader task decodes a shard and gives its batches one by one, an encoder (an actor that holds the
network) takes them from Ray's shared memory as they come, and the codes, a thousandth of the pictures' bytes, return to
the process that writes.
"""

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidalle.scale.plan import Batch, Plan, read_batches
from minidalle.vqgan.twin import VQGANTwin

READER_CPUS = 0.25  # of a core that also encodes: decoding is the smaller part
STORE_BYTES = 2**30  # shared memory for pictures on their way
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_enable_metrics_collection": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


def encode_on_ray(
    plan: Plan,
    shards: Sequence[int],
    load: Callable[[], VQGANTwin],
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Encoded batches of the shards, in the order in which they get done; arguments and errors as `encode`'s.

    A Ray session that is already there is used and left running. Otherwise one is started on this machine, where nobody
    outside can reach it, and ended with the last batch, or with this process, however that ends.
    """
    with session(address) as ray:
        have = ray.cluster_resources()
        cpus, gpus = int(have.get("CPU", 0)), int(have.get("GPU", 0))
        most, kind = (gpus, "GPUs") if gpus else (cpus, "CPU cores")
        workers = workers or max(1, most)
        if workers > most:
            raise ValueError(
                f"{workers} workers are more than Ray's {most} {kind}; ask for at most so many (--workers)"
            )
        needs = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1 - READER_CPUS}
        threads = max(1, cpus // workers) if not gpus else None

        settings = plan.settings

        def read(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
            for batch in read_batches(settings, *pickle.loads(row["shard"])):
                yield {"images": batch.images, "rest": pickle.dumps(batch._replace(images=None))}

        # A reader is sent its own part of the plan, not all of it.
        parts = [{"shard": pickle.dumps((shard, plan.shards[shard]))} for shard in shards]
        context = ray.data.DataContext.get_current()
        before = context.target_max_block_size
        # One batch is one block, so that an encoder gets it when it is decoded and not when the shard is.
        context.target_max_block_size = settings.batch_size * settings.size**2 * 3
        try:
            rows = (
                ray.data.from_items(parts, override_num_blocks=len(parts))
                .flat_map(read, num_cpus=1 if gpus else READER_CPUS)
                .map_batches(
                    _Encoder,
                    fn_constructor_args=(load, threads),
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(size=workers),
                    **needs,
                )
            )
            for row in rows.iter_rows():
                yield pickle.loads(row["rest"]), np.asarray(row["codes"])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise OSError(f"Ray's workers failed: {reason}; what stands is kept, so the same call goes on") from error
        finally:
            context.target_max_block_size = before


class _Encoder:
    """The actor: a network, loaded once, and as many threads as are its share of the cores."""

    def __init__(self, load: Callable[[], VQGANTwin], threads: int | None):
        if threads is not None:
            os.environ["NPROC"] = str(threads)  # read by XLA when it starts its threads on a CPU
        from minidalle.scale.encode import Encoder

        self.encoder = Encoder(load())

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        from minidalle.scale.encode import encode_batch

        codes = []
        for images, rest in zip(rows["images"], rows["rest"], strict=True):
            codes.append(encode_batch(pickle.loads(rest)._replace(images=images), self.encoder))
        return {"codes": codes, "rest": rows["rest"]}


@contextmanager
def session(address: str | None) -> Iterator[Any]:
    """Ray, running: the session that is there, the cluster's at the address, or one of our own."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError('the engine "ray" needs Ray; install it: pip install "minidalle[ray]"') from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    ours = not ray.is_initialized()
    if ours:
        local = {"include_dashboard": False, "object_store_memory": STORE_BYTES, "_node_ip_address": "127.0.0.1"}
        _start(ray, {"address": "local", **local} if address is None else {"address": address})
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _start(ray: Any, options: dict[str, Any]) -> None:
    """Start Ray, or join it. Its parts have 15 seconds to find each other, which no setting changes; so it has three tries."""
    for tries_left in (2, 1, 0):
        try:
            with warnings.catch_warnings():
                # JAX warns of every fork; Ray's are followed by exec at once, and harmless.
                warnings.filterwarnings("ignore", message=r"os\.fork\(\)", category=RuntimeWarning)
                ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
            return
        except Exception as error:  # a node that did not come up in time is a bare Exception
            ray.shutdown()
            if options["address"] != "local" or not tries_left:
                where = "on this machine" if options["address"] == "local" else f"at {options['address']}"
                raise OSError(f"Ray could not be had {where}: {error}") from error
