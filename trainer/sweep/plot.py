"""The figure of a sweep: what its trials reached, in their order and over each parameter."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from logger.plots.plots import FAINT, INK, TRAIN, VALID, lighten, new_figure, save_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MAX_COLUMNS = 3


def plot_sweep(
    table: "pd.DataFrame", scales: Mapping[str, str], path: Path, *, title: str, metric: str
) -> None:
    """Draw the value of each trial of a leaderboard: first by its number, then by each parameter.

    Dots are full for what was done, hollow for what was stopped or failed. `scales` says "linear",
    "log" or "text" for each parameter; `metric` is "min|max COLUMN".

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    mode, _, column = metric.partition(" ")
    seen = table[table["value"].notna()].sort_values("trial")
    done = seen[seen["state"] == "done"]
    num_columns = min(1 + len(scales), MAX_COLUMNS)
    num_rows = math.ceil((1 + len(scales)) / num_columns)
    figure = new_figure(4.2 * num_columns, 2.7 * num_rows + 0.5)
    for position, name in enumerate(["trial", *scales], start=1):
        axes = figure.add_subplot(num_rows, num_columns, position)
        _draw_trials(axes, seen, name, scales.get(name, "linear"))
        if name == "trial":
            best = done["value"].agg("cummin" if mode == "min" else "cummax")
            axes.plot(done["trial"], best, color=VALID, drawstyle="steps-post", label="best so far")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel(name, color=INK, fontsize=9)
        axes.set_ylabel(column if position % num_columns == 1 else "", color=INK, fontsize=9)
        axes.grid(color=FAINT, linewidth=0.7)
        lighten(axes)
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK)
    shown = figure.axes[0].get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_trials(axes: "Axes", seen: "pd.DataFrame", name: str, scale: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    places, values, is_done = seen[name], seen["value"], seen["state"] == "done"
    if scale == "text":
        choices = sorted(places.map(str).unique(), key=_rank)
        axes.set_xticks(range(len(choices)), choices)
        axes.margins(x=0.2)
        places = places.map(str).map(choices.index)
    elif scale == "log":
        axes.set_xscale("log")
        is_wide = places.max() > 50 * places.min()  # where more labels would overlap
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if is_wide else (1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if len(values) and 0 < 50 * values.min() < values.max():
        axes.set_yscale("log")
    style = {"s": 22, "edgecolors": TRAIN, "zorder": 3}
    axes.scatter(places[is_done], values[is_done], color=TRAIN, label="done", **style)
    if not is_done.all():
        style |= {"facecolors": "white", "label": "stopped or failed"}
        axes.scatter(places[~is_done], values[~is_done], **style)


def _rank(text: str) -> tuple[bool, float, str]:
    """Return what sorts numbers by their size, then other texts by their length."""
    try:
        return False, float(text), text
    except ValueError:
        return True, len(text), text
