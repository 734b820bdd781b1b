"""The time at which PyTorch has done what it was asked for. A peer's environment has PyTorch, and no minidalle."""

import time

import torch


def now(device: str) -> float:
    """Seconds on a running clock, once the GPU is done; `device` is "cpu" or "cuda"."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
