"""The contract of samplers: an order of training samples that a resumed run finds again."""

import numpy as np
import torch
from torch import Tensor

from base.errors import UsageError
from base.samples import AGAIN, Samples


class SampleOrder:
    """The order of the samples of an epoch; subclasses in `data_loader/` go by name in a config.

    A loader calls `prepare` once, and `positions` for every epoch with a generator seeded by
    (seed, epoch). On that alone the order may depend, so that a run continues within an epoch; a
    `torch.utils.data.Sampler` draws from the run's generator instead and cannot be resumed.
    """

    def prepare(self, samples: Samples, *, batch_size: int) -> None:
        """Take what is needed of the samples; `batch_size` counts those of all ranks together.

        Raises:
            UsageError: the samples lack what the order is made of.
        """

    def positions(self, generator: torch.Generator) -> Tensor:
        """Return as many positions among the N samples, (N,) int64; some may come repeatedly."""
        raise NotImplementedError(f"{type(self).__name__} has no positions method")


def numbered(positions: Tensor, num_samples: int) -> np.ndarray:
    """Return positions (N,) with `AGAIN` added for each time that one came before."""
    order = positions.numpy().astype(np.int64)  # a copy: the sampler may keep its own
    if order.shape != (num_samples,) or not 0 <= order.min() <= order.max() < num_samples:
        raise UsageError(
            f"a sampler gave positions {order.shape} from {order.min()} to {order.max()}, expected "
            f"{num_samples:,} from 0 to {num_samples - 1:,}"
        )
    places = order.argsort(kind="stable")  # brings equal ones together
    together = order[places]
    repeats = np.arange(num_samples) - together.searchsorted(together)
    order[places] = together + repeats * AGAIN
    return order
