"""One process or many: torchrun's environment, ranks, and the few reductions the loop needs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """Return this process's number among all of the run, 0 when alone."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """Return this process's number on its machine, 0 when alone."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """Return the number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_world_size() -> int:
    """Return the number of processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def launcher() -> str:
    """Return the command that starts a script as this run was started."""
    if world_size() == 1:
        return "python"
    # without them named, SIGUSR1 kills torchrun and leaves its processes behind
    signals = "--signals-to-handle SIGTERM,SIGINT,SIGUSR1"
    return f"torchrun --nproc_per_node={local_world_size()} {signals}"


def is_main() -> bool:
    """Tell whether this process is the one that writes."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes of the run, if torchrun started any."""
    if world_size() == 1:
        yield
        return
    # gloo serves the CPU flags and objects beside an accelerator's own backend
    backend = dist.get_default_backend_for_device(device)
    dist.init_process_group("gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:{backend}")
    try:
        yield
    finally:
        # the group's end holds the interpreter's lock while it joins gloo's threads, and one that
        # still gives a tensor back waits for that lock: let it finish first
        time.sleep(0.1)
        dist.destroy_process_group()


def gather_objects(thing: Any) -> list[Any]:
    """Return what every rank gave, in their order; on every rank."""
    if world_size() == 1:
        return [thing]
    things: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(things, thing)
    return things


def share(thing: Any) -> Any:
    """Return what the main process gave, on every rank."""
    return gather_objects(thing)[0]


def max_over_ranks(value: int) -> int:
    """Return the largest value any rank gave."""
    return max(gather_objects(value))


def barrier() -> None:
    """Wait until every rank is here."""
    gather_objects(None)


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of what the ranks gave, without its history."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value / world_size()


def average_gradients(module: nn.Module) -> None:
    """Give every rank the mean of the ranks' gradients, for a module that is not wrapped in DDP."""
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad = mean_over_ranks(parameter.grad)


def share_buffers(module: nn.Module) -> None:
    """Give every rank the main process's buffers, such as the statistics of batch norms."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
