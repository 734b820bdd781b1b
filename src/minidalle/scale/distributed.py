"""Several processes, on one machine or on many, that train one model: each runs the same program.

    minidalle train RECIPE --distributed        in every process; the recipe's [mesh] counts all devices

**Slurm**: one process for each GPU, as JAX assumes there. Nothing needs to be said, JAX reads Slurm's variables:

    srun --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 minidalle train recipe.toml --distributed

**Open MPI**, likewise one process for each GPU:

    mpirun -n 16 minidalle train recipe.toml --distributed

**Cloud TPU**, a slice of several hosts, one process for each host (cloud.google.com/tpu/docs/jax-pods):

    gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="minidalle train recipe.toml --distributed"

**GKE** and other Kubernetes: an indexed Job (`completionMode: Indexed`) with as many completions as processes, a headless
service as its subdomain, and the package `jax[k8s]`, with which JAX asks Kubernetes for the rest; on TPU node pools GKE
sets the variables that JAX reads on Cloud TPU. The container's command is the same `minidalle train … --distributed`.

**Anywhere else**, for instance two processes on two machines, the first of which is 10.0.0.1:

    MINIDALLE_COORDINATOR=10.0.0.1:1234 MINIDALLE_PROCESSES=2 MINIDALLE_PROCESS=0 minidalle train … --distributed
    MINIDALLE_COORDINATOR=10.0.0.1:1234 MINIDALLE_PROCESSES=2 MINIDALLE_PROCESS=1 minidalle train … --distributed

The run folder must be one that all processes see. After https://docs.jax.dev/en/latest/multi_process.html.
"""

import os

import jax

VARIABLES = ("MINIDALLE_COORDINATOR", "MINIDALLE_PROCESSES", "MINIDALLE_PROCESS")


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the other processes; before anything is computed.

    Without arguments they come from the environment (`VARIABLES`), else from Slurm, Open MPI, Kubernetes or Cloud TPU.

    coordinator: address and port of the first process. processes: how many there are. process: which this is, from 0.

    Raises ValueError when some are given and others not, and when none are and nothing was found; RuntimeError when JAX has
    already begun to compute, or the others do not answer within five minutes.
    """
    if coordinator is processes is process is None:
        coordinator, processes, process = _from_environment()
    given = [argument is not None for argument in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise ValueError(
            f"coordinator is {coordinator}, processes {processes}, process {process}; give all three, or none where "
            "Slurm, Open MPI, Kubernetes or Cloud TPU knows them"
        )
    # What several processes on CPUs speak; GPUs and TPUs have their own, and this says nothing to them.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except ValueError as error:
        raise ValueError(
            f"no cluster found ({error}); outside of Slurm, Open MPI, Kubernetes and Cloud TPU set {', '.join(VARIABLES)}"
        ) from error


def _from_environment() -> tuple[str | None, int | None, int | None]:
    coordinator, processes, process = (os.environ.get(name) for name in VARIABLES)
    try:
        return coordinator, processes and int(processes), process and int(process)
    except ValueError as error:
        raise ValueError(f"{VARIABLES[1]} is {processes!r} and {VARIABLES[2]} {process!r}; expected numbers") from error
