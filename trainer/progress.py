"""How long training waits for its data, and what would shorten that."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from base import BaseDataLoader

log = logging.getLogger("train")

TOO_LONG = 0.25  # of the time of training
LONG_ENOUGH = 1.0  # seconds of training that tell something


class TimedIterator:
    """Batches to iterate over once, and the seconds that the consumer has waited for them."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.started = time.perf_counter()
        self.waited = 0.0

    def __iter__(self) -> Iterator[Any]:
        asked = time.perf_counter()
        for batch in self.batches:
            self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The time since the iterator was made."""
        return time.perf_counter() - self.started


def warn_of_waiting(loader: BaseDataLoader, *, share: float, seconds: float) -> bool:
    """Say what to change if too large a share of an epoch was waiting; return whether it was."""
    is_slow = share > TOO_LONG and seconds > LONG_ENOUGH
    if is_slow:
        log.warning("training waits for data %.0f%% of the time: %s", 100 * share, advice(loader))
    return is_slow


def advice(loader: BaseDataLoader) -> str:
    """Return what to change in the config when the batches of a loader come too slowly."""
    if loader.dataset.is_batched:
        return "the transforms in dataset.transform cost that much; use fewer"
    num_cores, workers = os.cpu_count() or 1, "data_loader.args.num_workers"
    more = f"raise {workers} from {loader.num_workers} (the machine has {num_cores} cores)"
    if loader.in_memory:
        fewer = "use transforms of whole batches"
    else:
        fewer = "set data_loader.in_memory to true if the samples fit into memory"
    return f"{fewer}, or {more}" if loader.num_workers < num_cores else fewer
