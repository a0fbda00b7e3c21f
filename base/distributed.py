"""One process or many: torchrun's environment, ranks, and the few reductions the loop needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """Return this process's number among all of the run, 0 when alone."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """Return this process's number on its machine, 0 when alone."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """Return the number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", 1))


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
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield
    finally:
        dist.destroy_process_group()


def max_over_ranks(value: int) -> int:
    """Return the largest value any rank gave."""
    if world_size() == 1:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def gather_objects(thing: Any) -> list[Any]:
    """Return what every rank gave, in their order; on every rank."""
    if world_size() == 1:
        return [thing]
    things: list[Any] = [None] * world_size()
    dist.all_gather_object(things, thing)
    return things


def share(thing: Any) -> Any:
    """Return what the main process gave, on every rank."""
    if world_size() == 1:
        return thing
    box = [thing]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.all_reduce(Tensor([0]))
