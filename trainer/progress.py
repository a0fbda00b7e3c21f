"""How far an epoch is, how long training waits for its data, and what would shorten that."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from base import BaseDataLoader, BaseTrainer
from base.runtime import distributed
from logger import ProgressBar

log = logging.getLogger("train")

TOO_LONG = 0.25  # of the time of training
LONG_ENOUGH = 1.0  # seconds of training that tell something


class TimedIterator:
    """Batches to iterate over once; `seconds` is how long the consumer has waited for them."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Any]:
        asked = time.perf_counter()
        for batch in self.batches:
            self.seconds += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()


def progress_bar(trainer: BaseTrainer, *, first: int, num_samples: int) -> ProgressBar:
    """Return the bar over an epoch's samples, of all ranks, from the batch numbered `first` on."""
    sampler = trainer.data_loader.batch_sampler
    return ProgressBar(
        num_samples,
        description=f"epoch {trainer.epoch + 1}/{trainer.settings.epochs}",
        initial=sampler.count_samples(first, trainer.batch),
        enabled=distributed.is_main(),
    )


def warn_of_waiting(trainer: BaseTrainer) -> None:
    """Say once what to change when an epoch waited for its data too long."""
    if trainer.waiting > TOO_LONG and trainer.seconds > LONG_ENOUGH and not trainer.has_warned:
        trainer.has_warned = True
        share, change = f"{trainer.waiting:.0%}", advice(trainer.data_loader)
        log.warning("training waits for data %s of the time: %s", share, change)


def advice(loader: BaseDataLoader) -> str:
    """Return what to change in the config when the batches of a loader come too slowly."""
    if loader.dataset.is_batched:
        return "the transforms in dataset.transform cost that much; use fewer"
    num_cores, workers = os.cpu_count() or 1, "data_loader.args.num_workers"
    more = f"raise {workers} from {loader.num_workers} (the machine has {num_cores} cores)"
    if loader.in_memory:
        fewer = "use transforms of whole batches, such as RandomShift"
    else:
        fewer = "set data_loader.in_memory to true if the samples fit into memory"
    return f"{fewer}, or {more}" if loader.num_workers < num_cores else fewer
