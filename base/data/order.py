"""The order of samples: a batch of any number is found without those before it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from base.data.sample_rng import derive_seed
from base.errors import UsageError, format_value
from base.runtime import distributed

if TYPE_CHECKING:
    from base.data.batch_dataset import BatchDataset

REPEAT_OFFSET = 2**32  # is added to a position for each time that it came before in the epoch


class BatchIndices(NamedTuple):
    """What a sampler asks for: positions among the loader's samples, (B,) int64, of an epoch.

    One asked for repeatedly has `REPEAT_OFFSET` added each time, so that each has draws of its own.
    Arrays, since a tensor would go to a worker through shared memory, which takes much longer.
    """

    epoch: int
    positions: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """The positions (B,) without what tells repeated ones apart."""
        return self.positions & (REPEAT_OFFSET - 1)


class SampleOrder:
    """The order of the samples of an epoch; subclasses in `data_loader/` go by name in a config.

    A loader calls `prepare` once, and `positions` for every epoch with a generator seeded by
    (seed, epoch). On that alone the order may depend, so that a run continues within an epoch; a
    `torch.utils.data.Sampler` draws from the run's generator instead and cannot be resumed.
    """

    def prepare(self, samples: "BatchDataset", *, batch_size: int) -> None:
        """Take what is needed of the samples; `batch_size` counts those of all ranks together.

        Raises:
            UsageError: the samples lack what the order is made of.
        """

    def positions(self, generator: torch.Generator) -> Tensor:
        """Return as many positions among the N samples, (N,) int64; some may come repeatedly."""
        raise NotImplementedError


class EpochBatchSampler(Sampler[BatchIndices]):
    """Batches of positions, numbered through all epochs, so that any is found without the others.

    Batch `g` is batch `g % len` of epoch `g // len`. The order of an epoch is a permutation seeded
    by (seed, epoch), or what a prepared `sampler` makes of that seed. With several ranks a global
    batch of `batch_size * world_size` samples is cut into even parts. A last one with fewer samples
    than ranks is left out of training, where every rank must step; in evaluation only the ranks
    that have a part of it see it.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        sampler: SampleOrder | None = None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, expected 1 or more")
        if not isinstance(sampler, SampleOrder | None):
            found = format_value(sampler)
            raise UsageError(f"sampler is {found}, expected a SampleOrder; torch's cannot resume")
        self.num_samples = num_samples
        self.shuffle = shuffle
        self.seed = seed
        self.sampler = sampler
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.global_batch_size = batch_size * self.world_size
        self.every_rank_steps = True
        self.start, self.stop = 0, None

    def __len__(self) -> int:
        """Return the number of this rank's batches in an epoch."""
        full, rest = divmod(self.num_samples, self.global_batch_size)
        needed = self.world_size if self.every_rank_steps else self.rank + 1
        return full + (rest >= needed)

    def __iter__(self) -> Iterator[BatchIndices]:
        num_batches, size, epoch, order = len(self), self.global_batch_size, -1, None
        for number in range(self.start, num_batches if self.stop is None else self.stop):
            if number // num_batches != epoch:
                epoch = number // num_batches
                order = self._order(epoch)
            first = number % num_batches * size
            batch = order[first : first + size]
            if self.world_size > 1:
                batch = np.array_split(batch, self.world_size)[self.rank]
            yield BatchIndices(epoch, batch)

    def weight(self, number: int) -> float:
        """Return this rank's share of a global batch, 1.0 being an even one."""
        first = number % len(self) * self.global_batch_size
        size = min(self.global_batch_size, self.num_samples - first)
        mine = size // self.world_size + (self.rank < size % self.world_size)
        return mine * self.world_size / size

    def count_samples(self, start: int, count: int) -> int:
        """Return the number of samples of some batches, over all ranks."""
        in_epoch = min(self.num_samples, len(self) * self.global_batch_size)
        first, end = (divmod(number, len(self)) for number in (start, start + count))
        return (end[0] - first[0]) * in_epoch + (end[1] - first[1]) * self.global_batch_size

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.num_samples)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        if self.sampler is not None:
            return _number_repeats(self.sampler.positions(generator), self.num_samples)
        return torch.randperm(self.num_samples, generator=generator).numpy()


def _number_repeats(positions: Tensor, num_samples: int) -> np.ndarray:
    """Return positions (N,) with `REPEAT_OFFSET` added for each time that one came before."""
    order = positions.numpy().astype(np.int64)  # a copy: the sampler may keep its own
    if order.shape != (num_samples,) or not 0 <= order.min() <= order.max() < num_samples:
        found = f"{order.shape} from {order.min()} to {order.max()}"
        expected = f"{num_samples} from 0 to {num_samples - 1}"
        raise UsageError(f"a sampler gave positions {found}, expected {expected}")
    places = order.argsort(kind="stable")  # brings equal ones together
    together = order[places]
    repeats = np.arange(num_samples) - together.searchsorted(together)
    order[places] = together + repeats * REPEAT_OFFSET
    return order
