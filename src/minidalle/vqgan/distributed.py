"""One training run over several PyTorch processes, as `torchrun` starts them: each takes its slice of every batch.

The gradients are averaged by PyTorch's `DistributedDataParallel`; this file has what that leaves out: everything that is
computed from a whole batch (statistics of the codes, of the discriminator's batch norm, what is logged). Losses are means
over equal slices, so the mean over processes is the loss of the whole batch. In a single process all of it does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def joined() -> Iterator[torch.device]:
    """Meet the other processes that `torchrun` started, if it did, and part from them at the end; gives the device.

    On GPUs each process gets the one of its `LOCAL_RANK` and they speak over NCCL, else over Gloo.
    """
    gpu = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield torch.device("cuda" if gpu else "cpu")
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; number 0 writes."""
    return dist.get_rank() if world() > 1 else 0


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if world() > 1:
        dist.barrier()


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    if world() == 1:
        return flag
    found = torch.tensor(int(flag), device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)


def total(tensor: Tensor) -> Tensor:
    """Sum over processes, without a gradient; every process gets the same bits."""
    if world() == 1:
        return tensor
    tensor = tensor.detach().clone()
    dist.all_reduce(tensor)
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """Mean over processes, without a gradient."""
    return total(tensor) / world() if world() > 1 else tensor


def draw_rows(rows: Tensor, count: int) -> Tensor:
    """Draw `count` of the rows of all processes together, `(n, dim)` in each, with replacement: the same for all."""
    chosen = torch.randint(world() * len(rows), (count,), device=rows.device)
    if world() == 1:
        return rows[chosen]
    dist.broadcast(chosen, 0)
    ours = (chosen // len(rows) == rank())[:, None]
    return total(torch.where(ours, rows[chosen % len(rows)], 0))


def take_from_first(module: nn.Module) -> None:
    """Give a module the weights and buffers that it has in process 0."""
    if world() > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, 0)


class _Sum(torch.autograd.Function):
    """Sum over processes; each process's losses depend on it, so their gradients are summed too."""

    @staticmethod
    def forward(context, tensor):
        return total(tensor)

    @staticmethod
    def backward(context, gradient):
        return total(gradient)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm with the statistics of the whole batch, over all processes (`nn.SyncBatchNorm` knows GPUs only)."""

    def forward(self, x: Tensor) -> Tensor:
        if world() == 1 or not self.training:
            return super().forward(x)
        count = world() * x.numel() / x.shape[1]
        average = _Sum.apply(x.sum((0, 2, 3))) / count
        centred = x - average[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(average, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normal = centred * (variance + self.eps).rsqrt()[:, None, None]
        return torch.addcmul(self.bias[:, None, None], normal, self.weight[:, None, None])
