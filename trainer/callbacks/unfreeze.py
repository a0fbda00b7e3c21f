"""Unfreeze parameters at an epoch."""

from fnmatch import fnmatchcase

from pydantic import PositiveInt

from base import BaseTrainer, Callback
from base.errors import UsageError, did_you_mean


class Unfreeze(Callback):
    """Unfreezes parameters that `model.freeze` froze, from an epoch on.

    `params` is a name pattern or a list of them, `epoch` the first epoch, counted from 1, that
    trains them. They are in the optimizer from the start, so a parameter group may give them a
    learning rate of their own.

    Raises:
        UsageError: a pattern matches nothing frozen when training starts.
    """

    def __init__(self, params: str | list[str], epoch: PositiveInt) -> None:
        self.patterns = [params] if isinstance(params, str) else params
        self.epoch = epoch

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        parameters = trainer.network.named_parameters()
        frozen = [name for name, parameter in parameters if not parameter.requires_grad]
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in frozen):
                near = did_you_mean(pattern, frozen)
                raise UsageError(
                    f"Unfreeze: {pattern!r} matches no parameter that model.freeze froze{near}"
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
