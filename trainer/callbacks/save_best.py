"""Keep the best state by another column than `trainer.monitor`."""

from collections.abc import Iterator, Mapping
from typing import Any

from base import BaseTrainer, Callback
from base.config.rules import check_monitor_column
from base.config.schema import Config, check_monitor
from base.errors import ConfigIssue, KeyPath, UsageError
from base.runtime.monitor import Monitor


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

    @staticmethod
    def check_config(config: Config, path: KeyPath) -> Iterator[ConfigIssue]:
        """Yield an issue where `monitor` follows a column that nothing logs."""
        args = config.callbacks[path[-1]].args
        monitor = args.get("monitor") if isinstance(args, dict) else args[0]
        yield from check_monitor_column(config, monitor, (*path, "args", "monitor"))

    def on_epoch_end(self, trainer: BaseTrainer, row: Mapping[str, float]) -> None:
        if self.monitor.update(row):
            trainer.save_best(self.monitor.column)

    def state_dict(self) -> dict[str, Any]:
        return self.monitor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.monitor.load_state_dict(state)
