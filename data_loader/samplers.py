"""Samplers: the orders in which training samples can be drawn besides a plain shuffle."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from base.data.batch_dataset import BatchDataset
from base.data.in_memory import progress
from base.data.order import BatchIndices, SampleOrder
from base.data.sample_rng import as_in_a_worker
from base.errors import UsageError


class WeightedByClass(SampleOrder):
    """Draws with replacement, each class as often as any other, however rare its samples are.

    A sample's class is a whole number: its entry in the dataset's `targets`, else the second part
    of the sample, which is read once for it.
    """

    def prepare(self, samples: BatchDataset, *, batch_size: int) -> None:
        targets = sample_numbers(samples, "targets", _second)
        _, classes, counts = targets.unique(return_inverse=True, return_counts=True)
        self.weights = 1 / counts[classes].double()  # (N,)

    def positions(self, generator: torch.Generator) -> Tensor:
        return self.weights.multinomial(len(self.weights), replacement=True, generator=generator)


class LengthBuckets(SampleOrder):
    """Batches of samples about as long as one another, so that little of a batch is padding.

    Shuffled samples are sorted by length within pools of `pool` batches, and the batches shuffled;
    a shorter one stays last. A sample's length is its entry in the dataset's `lengths`, else the
    `len` of its first part, which is read once for it.
    """

    def __init__(self, pool: PositiveInt = 100) -> None:
        self.pool = pool

    def prepare(self, samples: BatchDataset, *, batch_size: int) -> None:
        self.lengths = sample_numbers(samples, "lengths", _length)
        self.batch_size = batch_size

    def positions(self, generator: torch.Generator) -> Tensor:
        order = torch.randperm(len(self.lengths), generator=generator)
        pools = order.split(self.pool * self.batch_size)
        order = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools])
        batches = order.split(self.batch_size)
        shuffled = torch.randperm(len(order) // self.batch_size, generator=generator).tolist()
        return torch.cat([*(batches[number] for number in shuffled), *batches[len(shuffled) :]])


def sample_numbers(samples: BatchDataset, attribute: str, take: Callable[[Any], Any]) -> Tensor:
    """Return a whole number for each sample, (N,) int64.

    It is of the dataset's `attribute`, else what `take` finds in the sample as it is read.

    Raises:
        UsageError: some samples have none.
        DataError: a sample cannot be read.
    """
    dataset, chosen = samples.dataset, samples.indices
    values = getattr(dataset, attribute, None)
    # which does not hold what a target transform gives
    if values is None or getattr(dataset, "target_transform", None) is not None:
        chosen = torch.arange(len(samples))
        with as_in_a_worker():
            read = samples.read(BatchIndices(0, chosen.numpy()))
            values = [take(sample) for sample in progress(read, total=len(samples))]
    # some may be missing, text or uneven
    with suppress(TypeError, ValueError, LookupError, RuntimeError):
        values = torch.as_tensor(values)[chosen]
        if values.ndim == 1 and bool((values == values.long()).all()):
            return values.long()
    need = "for the sampler, which needs a whole number for each sample"
    raise UsageError(f"{type(dataset).__name__} has no {attribute} {need}")


def _second(sample: Any) -> Any:
    return sample[1] if isinstance(sample, (tuple, list)) and len(sample) > 1 else None


def _length(sample: Any) -> int | None:
    first = sample[0] if isinstance(sample, (tuple, list)) and sample else sample
    try:
        return len(first)
    except TypeError:  # a number, or an image that is not decoded
        return None
