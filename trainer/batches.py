"""What a batch holds, how many make an epoch, and how long training waits for them."""

import inspect
import logging
import math
import os
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from base import BaseDataLoader
from base.config.schema import RESERVED_COLUMNS, Config, TrainerConfig
from base.errors import ConfigIssue, KeyPath, UsageError
from base.registry import LOSSES

if TYPE_CHECKING:
    from trainer.trainer import Trainer

log = logging.getLogger("train")

TOO_LONG = 0.25  # of the time of training
LONG_ENOUGH = 1.0  # seconds of training that tell something

Losses = Tensor | dict[str, Tensor]  # one loss, or its components by name


def input_and_target(batch: Any) -> tuple[Any, Any]:
    """Return the two parts of a batch.

    Raises:
        UsageError: the batch is no pair, so `train_step` must be written for it, or its targets
            are text.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        if isinstance(batch[1], (tuple, list)) and batch[1] and isinstance(batch[1][0], str):
            raise UsageError(
                f"the targets are text, such as {batch[1][0]!r}; let the dataset give class numbers"
            )
        return batch[0], batch[1]
    count = f" of {len(batch)}" if isinstance(batch, (tuple, list, Mapping)) else ""
    raise UsageError(
        f"the stock train_step takes batches of (input, target), found a {type(batch).__name__}"
        f"{count}; override train_step(batch) in a trainer of your own"
    )


def check_stock_steps(config: Config, path: KeyPath) -> Iterator[ConfigIssue]:
    """Yield what of a config does not go with steps that give a loss (output, target)."""
    if config.trainer.args:
        message = "the stock Trainer takes none; they go to a trainer of yours"
        yield ConfigIssue((*path, "args"), message)
    kind = LOSSES.find(config.loss.type)
    if not inspect.isclass(kind):
        return
    _, *takes = inspect.signature(getattr(kind, "forward", kind.__call__)).parameters.values()
    if sum(parameter.default is parameter.empty for parameter in takes) > 2:
        names = ", ".join(parameter.name for parameter in takes)
        message = "the stock step gives (output, target); override train_step in a trainer of yours"
        yield ConfigIssue(("loss",), f"{config.loss.type} takes ({names}), {message}")


def loss_components(losses: Losses | None, *, taken: Container[str]) -> dict[str, Tensor]:
    """Return what a step gave as columns: its losses by name, or one `loss`.

    Raises:
        UsageError: it gave none, or one is called as another column is, such as those `taken`.
    """
    if losses is None or (isinstance(losses, dict) and not losses):
        raise UsageError("the step returned nothing, expected a loss or a dict of its parts")
    if not isinstance(losses, dict):
        return {"loss": losses}
    wrong = [name for name in losses if name in RESERVED_COLUMNS or name in taken]
    if wrong and [*losses] != ["loss"]:
        raise UsageError(f"a part of the loss is called {min(wrong)!r} as another column is")
    return losses


def count_batches(settings: TrainerConfig, data_loader: BaseDataLoader) -> int:
    """Return the number of batches of a training epoch."""
    if settings.len_epoch is not None:
        return settings.len_epoch * settings.accumulate
    return count_limited(settings, data_loader)


def count_steps(settings: TrainerConfig, data_loader: BaseDataLoader) -> int:
    """Return the number of optimizer steps of a training epoch; the last may be a shorter group."""
    return math.ceil(count_batches(settings, data_loader) / settings.accumulate)


def count_limited(settings: TrainerConfig, data_loader: BaseDataLoader | None) -> int:
    """Return the number of batches of one pass through a loader, 0 where there is none."""
    num_batches = len(data_loader) if data_loader is not None else 0
    return min(num_batches, settings.limit_batches or num_batches)


class TimedIterator:
    """Batches to iterate over once, and how much of the time since was spent on waiting for them.

    `seconds_before` are those of training in the same epoch by an earlier process.
    """

    def __init__(self, batches: Iterable[Any], seconds_before: float = 0.0) -> None:
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
    keep = "set data_loader.in_memory to true if the samples fit into memory"
    fewer = "use transforms of whole batches" if loader.in_memory else keep
    workers = f"data_loader.args.num_workers from {loader.num_workers}"
    return f"{fewer}, or raise {workers} (the machine has {os.cpu_count()} cores)"
