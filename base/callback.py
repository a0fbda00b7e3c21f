"""The contract of callbacks: the hooks of training, in the order in which they are called."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from base.base_trainer import BaseTrainer


class Callback:
    """Something that happens beside training; override what is needed.

    What a callback must remember across a resume goes through `state_dict`, as plain data.
    """

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Act before the first epoch, after a checkpoint was restored."""

    def on_epoch_start(self, trainer: "BaseTrainer") -> None:
        """Act before the first batch of an epoch, not when one is continued in the middle."""

    def on_batch(self, trainer: "BaseTrainer", batch: Any) -> Any:
        """Return what to train on in place of a batch that is on the device already."""
        return batch

    def on_step(self, trainer: "BaseTrainer") -> None:
        """Act after an optimizer step, before anything is logged or saved."""

    def on_epoch_end(self, trainer: "BaseTrainer", row: Mapping[str, float]) -> None:
        """Act after evaluation, before the epoch is saved; `row` is what was logged."""

    def on_fit_end(self, trainer: "BaseTrainer") -> None:
        """Act when training is done or stopped early, not when it is interrupted."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
