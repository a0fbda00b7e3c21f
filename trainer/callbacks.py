"""Ready callbacks: every `Callback` defined in this folder can be named in a config."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from base import BaseTrainer, Callback
from base.config import check_monitor
from base.errors import UsageError, did_you_mean
from base.monitor import Monitor


class Unfreeze(Callback):
    """Trains parameters that `model.freeze` keeps as they are, from an epoch on.

    `params` is a name pattern or a list of them, `epoch` the first epoch, counted from 1, that
    trains them. They are in the optimizer from the start, so a parameter group may give them a
    learning rate of their own.

    Raises:
        UsageError: `epoch` is below 1, or, when training starts, a pattern matches nothing frozen.
    """

    def __init__(self, params: str | list[str], epoch: int) -> None:
        if epoch < 1:
            raise UsageError(f"Unfreeze: epoch is {epoch}, expected 1 or more")
        self.patterns = [params] if isinstance(params, str) else params
        self.epoch = epoch

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        parameters = trainer.network.named_parameters()
        frozen = [name for name, parameter in parameters if not parameter.requires_grad]
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in frozen):
                near = did_you_mean(pattern, frozen)
                raise UsageError(
                    f"Unfreeze: {pattern!r} matches no parameter that model.freeze keeps{near}"
                )
        self.on_epoch_start(trainer)

    def on_epoch_start(self, trainer: BaseTrainer) -> None:
        if trainer.epoch + 1 < self.epoch:
            return
        frozen = [
            parameter
            for name, parameter in trainer.network.named_parameters()
            if not parameter.requires_grad and any(fnmatchcase(name, p) for p in self.patterns)
        ]
        for parameter in frozen:
            parameter.requires_grad_(True)
        if frozen:
            trainer.wrap()  # DistributedDataParallel knows only what was trained when it was made


class SaveBest(Callback):
    """Keeps the best state by another column than `trainer.monitor`: `model_best_COLUMN.pth`.

    `monitor` is "min COLUMN" or "max COLUMN".

    Raises:
        UsageError: `monitor` is neither, or no such column is logged.
    """

    def __init__(self, monitor: str) -> None:
        try:
            self.monitor = Monitor(check_monitor(monitor))
        except ValueError as error:
            raise UsageError(f"SaveBest: monitor: {error}") from error
        if not self.monitor.is_on:
            raise UsageError(
                "SaveBest: monitor: expected 'min COLUMN' or 'max COLUMN', found 'off'"
            )

    def on_epoch_end(self, trainer: BaseTrainer, row: Mapping[str, float]) -> None:
        if self.monitor.update(row):
            trainer.save_best(self.monitor.column)

    def state_dict(self) -> dict[str, Any]:
        return self.monitor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.monitor.load_state_dict(state)
