"""Watches one column: has it improved, and is it time to stop?"""

import math
from collections.abc import Mapping
from typing import Any

from base.errors import UsageError, did_you_mean

STATE = ("best", "best_epoch", "best_row", "num_bad_epochs")


class Monitor:
    """Follows "min COLUMN" or "max COLUMN"; "off" never improves and never stops.

    Equal is not better, and NaN never improves. `early_stop` is the number of epochs without
    improvement after which `should_stop` is true; 0 never stops.
    """

    def __init__(self, monitor: str = "off", *, early_stop: int = 0) -> None:
        self.mode, _, self.column = monitor.partition(" ")
        self.early_stop = early_stop
        self.best, self.best_epoch, self.num_bad_epochs = math.nan, 0, 0
        self.best_row: dict[str, float] = {}

    @property
    def should_stop(self) -> bool:
        return 0 < self.early_stop <= self.num_bad_epochs

    def update(self, row: Mapping[str, float]) -> bool:
        """Take an epoch's row and tell whether the column improved.

        Raises:
            UsageError: the row has no such column.
        """
        if self.mode == "off":
            return False
        if self.column not in row:
            near = did_you_mean(self.column, row)
            raise UsageError(f"monitor: no column {self.column!r} was logged{near}")
        value = float(row[self.column])
        is_better = value < self.best if self.mode == "min" else value > self.best
        if is_better or (math.isnan(self.best) and not math.isnan(value)):
            self.best, self.best_epoch, self.num_bad_epochs = value, int(row["epoch"]), 0
            self.best_row = dict(row)
            return True
        self.num_bad_epochs += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in STATE:
            setattr(self, name, state[name])
