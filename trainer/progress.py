"""How far an epoch is, how long training waits for its data, and what would shorten that."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from base import BaseDataLoader
from base.runtime import distributed
from logger import ProgressBar

if TYPE_CHECKING:
    from trainer.trainer import Trainer

log = logging.getLogger("train")

TOO_LONG = 0.25  # of the time of training
LONG_ENOUGH = 1.0  # seconds of training that tell something


class TimedIterator:
    """Batches to iterate over once, and how much of the time since was spent on waiting for them.

    `seconds_before` are those of training in the same epoch by an earlier process.
    """

    def __init__(self, batches: Iterable[Any], *, seconds_before: float = 0.0) -> None:
        self.batches, self.seconds_before = batches, seconds_before
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
        """The time of training in this epoch."""
        return self.seconds_before + time.perf_counter() - self.started

    @property
    def share_waited(self) -> float:
        """The share of this process's time in which training waited."""
        return self.waited / (time.perf_counter() - self.started)


def progress_bar(trainer: "Trainer") -> ProgressBar:
    """Return the bar over an epoch's samples, of all ranks, from the trainer's batch on."""
    return ProgressBar(
        trainer.num_samples,
        description=f"epoch {trainer.epoch + 1}/{trainer.settings.epochs}",
        initial=trainer.data_loader.batch_sampler.count_samples(trainer.first_batch, trainer.batch),
        enabled=distributed.is_main(),
    )


def warn_of_waiting(trainer: "Trainer") -> bool:
    """Say what to change if an epoch waited too long for its data; return whether it did."""
    if trainer.waiting <= TOO_LONG or trainer.seconds <= LONG_ENOUGH:
        return False
    share = f"{trainer.waiting:.0%}"
    log.warning("training waits for data %s of the time: %s", share, advice(trainer.data_loader))
    return True


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
