"""The curves of a finished run as a picture."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.base_writer import BaseWriter, ResumedFrom
from base.registry import WRITERS
from base.runtime.monitor import Monitor
from logger.plots.figures import BEST, INK, TRAIN, VALID, lighten, new_figure, save_figure
from logger.run_directory import RunDirectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger("train")

NOT_CURVES = ("epoch", "step", "seconds", "samples_per_second")


@WRITERS.register("plots")
class PlotsWriter(BaseWriter):
    """Draws curves.png at the end of training: a panel for each column of the epochs' rows."""

    on_by_default = True

    def __init__(
        self, *, run: RunDirectory, config: Mapping[str, Any], resume: ResumedFrom | None = None
    ) -> None:
        import pandas as pd

        self._path = run.path / "curves.png"
        self._title = f"{config['name']}  {run.run_id}"
        self._monitor = config["trainer"]["monitor"]
        self._rows: list[Mapping[str, float]] = []
        if resume and run.metrics_file.exists():
            rows = pd.read_csv(run.metrics_file).to_dict("records")
            self._rows = [row for row in rows if row["epoch"] <= resume.epoch]

    def log_epoch(self, row: Mapping[str, float | int]) -> None:
        self._rows.append(row)

    def finish(self, summary: Mapping[str, Any]) -> None:
        if self._rows:
            plot_curves(self._rows, self._path, title=self._title, monitor=self._monitor)
            log.info("curves: %s", self._path)


def plot_curves(
    rows: Sequence[Mapping[str, float]],
    path: Path,
    *,
    title: str,
    monitor: str = "off",
    x: str = "epoch",
) -> None:
    """Draw one panel per quantity over the column `x`, training and validation together.

    `rows` are like those of metrics.csv. The epoch that is best by `monitor`, "min|max COLUMN", is
    marked; "off" or a column that is not there marks none.

    Raises:
        WriteError: the file cannot be written.
    """
    names = _quantities(rows)
    num_columns = 2 if len(names) == 4 else min(len(names), 3)
    num_rows = math.ceil(len(names) / num_columns)
    figure = new_figure(max(4.2 * num_columns, 6.0), 2.7 * num_rows + 0.8)
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK)
    best_epoch = _best_epoch(rows, monitor)
    for position, name in enumerate(names, start=1):
        axes = figure.add_subplot(num_rows, num_columns, position, xlabel=x)
        _draw_quantity(axes, rows, name, x)
        if best_epoch:
            axes.axvline(best_epoch, label=f"best epoch: {best_epoch} ({monitor})", **BEST)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)


def _quantities(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the names of the curves, those of training and validation once, `loss` first."""
    keys = (key.removeprefix("val_") for row in rows for key in row if key not in NOT_CURVES)
    return sorted(dict.fromkeys(keys), key=lambda name: (name != "loss", name == "lr"))


def _best_epoch(rows: Sequence[Mapping[str, float]], monitor: str) -> int:
    best = Monitor(monitor)
    for row in rows:
        if best.column in row:
            best.update(row)
    return best.best_epoch


def _draw_quantity(axes: "Axes", rows: Sequence[Mapping[str, float]], name: str, x: str) -> None:
    style = {"linewidth": 1.8, "marker": "o" if len(rows) <= 25 else "", "markersize": 3.5}
    curves = {name: ("training", TRAIN), f"val_{name}": ("validation", VALID)}
    drawn: list[float] = []
    for column, (label, colour) in curves.items():
        points = [(row[x], row[column]) for row in rows if math.isfinite(row.get(column, math.nan))]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=label, **style)
            drawn += [value for _, value in points]
    if (name == "lr" or "loss" in name) and drawn and 0 < 50 * min(drawn) < max(drawn):
        axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    lighten(axes, name)
