"""Keep the best state by another column than `trainer.monitor`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from base import BaseTrainer, Callback
from base.config.rules import check_monitor_column
from base.config.schema import Config, check_monitor
from base.errors import ConfigIssue, KeyPath
from base.runtime.monitor import Monitor


def _check_column(monitor: str) -> str:
    if check_monitor(monitor) == "off":
        raise ValueError("expected 'min COLUMN' or 'max COLUMN', found 'off'")
    return monitor


class SaveBest(Callback):
    """Keeps the best state by another column than `trainer.monitor`: `model_best_COLUMN.pth`.

    `monitor` is "min COLUMN" or "max COLUMN".
    """

    def __init__(self, monitor: Annotated[str, AfterValidator(_check_column)]) -> None:
        self.monitor = Monitor(monitor)

    @staticmethod
    def check_config(config: Config, path: KeyPath) -> Iterator[ConfigIssue]:
        """Yield an issue where `monitor` follows a column that nothing logs."""
        args = config.callbacks[path[-1]].args
        monitor = args.get("monitor") if isinstance(args, dict) else next(iter(args), None)
        yield from check_monitor_column(config, monitor, (*path, "args", "monitor"))

    def on_epoch_end(self, trainer: BaseTrainer, row: Mapping[str, float]) -> None:
        if self.monitor.update(row):
            trainer.save_best(self.monitor.column)

    def state_dict(self) -> dict[str, Any]:
        return self.monitor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.monitor.load_state_dict(state)
