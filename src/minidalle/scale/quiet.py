"""Where `libtpu` is installed and there is no TPU: JAX loads it all the same, and it would complain on stderr."""

import glob
import importlib.util
import os

# So that libtpu asks no metadata server for a TPU that is not there, writes nothing to stderr and to /tmp/tpu_logs, and does
# not mind other processes that compile, whose lock file says that the TPU is taken.
SETTINGS = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v3-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def quieten_libtpu() -> None:
    """Put `SETTINGS` into this process's environment, before JAX starts; what is set already stays, and a TPU is let alone."""
    if importlib.util.find_spec("libtpu") is None or glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"):
        return
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
