"""Figures as PNG files: curves, confusion matrix, images. Needs matplotlib, not pyplot."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from base.checkpoint.files import write_atomic
from base.runtime.monitor import Monitor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN, VALID = "#2f6fb0", "#e0742b"  # told apart with any colour vision, and in grey
INK, FAINT = "#333333", "#dddddd"
BEST = {"color": INK, "linewidth": 1.0, "linestyle": (0, (2, 2)), "zorder": 1.8}
DPI = 140  # a matrix of 1000 classes gets more than a pixel each
NOT_CURVES = ("epoch", "step", "seconds", "samples_per_second")
MAX_NUMBERED_CLASSES = 30
MAX_TICK_LABELS = 50
MAX_LABEL_LENGTH = 24


def plot_curves(
    rows: Sequence[Mapping[str, float]],
    path: Path,
    *,
    title: str,
    monitor: str = "min val_loss",
    x: str = "epoch",
) -> None:
    """Draw one panel per quantity over the column `x`, training and validation together.

    `rows` are like those of metrics.csv. The epoch that is best by `monitor`, "min|max COLUMN", is
    marked; "off" or a column that is not there marks none.

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.lines import Line2D

    names = _quantities(rows)
    num_columns = len(names) if len(names) <= 3 else 2 if len(names) == 4 else 3
    num_rows = math.ceil(len(names) / num_columns)
    figure = new_figure(max(4.2 * num_columns, 6.0), 2.7 * num_rows + 0.8)
    best_epoch = _best_epoch(rows, monitor)
    for position, name in enumerate(names, start=1):
        axes = figure.add_subplot(num_rows, num_columns, position)
        _draw_quantity(axes, rows, name, x)
        if best_epoch:
            axes.axvline(best_epoch, **BEST)
        if position > len(names) - num_columns:
            axes.set_xlabel(x, color=INK)

    handles = [Line2D([], [], color=TRAIN, linewidth=1.8, label="training")]
    if any(key.startswith("val_") for row in rows for key in row):
        handles.append(Line2D([], [], color=VALID, linewidth=1.8, label="validation"))
    if best_epoch:
        handles.append(Line2D([], [], label=f"best epoch: {best_epoch} ({monitor})", **BEST))
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK)
    if len(handles) > 1:
        place = "outside lower center"
        figure.legend(handles=handles, loc=place, ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path)


def _quantities(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Return what there is a curve of, each once, `loss` first and `lr` last."""
    keys = (key.removeprefix("val_") for row in rows for key in row if key not in NOT_CURVES)
    names = list(dict.fromkeys(keys))
    return sorted(names, key=lambda name: (name != "loss", name == "lr"))


def _best_epoch(rows: Sequence[Mapping[str, float]], monitor: str) -> int:
    watch = Monitor(monitor)
    for row in rows:
        if watch.column in row:
            watch.update(row)
    return watch.best_epoch


def _draw_quantity(axes: "Axes", rows: Sequence[Mapping[str, float]], name: str, x: str) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    places = [row[x] for row in rows]
    marker = "o" if len(rows) <= 25 else ""
    shown = []
    for column, colour in ((name, TRAIN), (f"val_{name}", VALID)):
        values = [row.get(column, math.nan) for row in rows]
        shown += [value for value in values if math.isfinite(value)]
        if any(map(math.isfinite, values)):
            axes.plot(places, values, color=colour, linewidth=1.8, marker=marker, markersize=3.5)
    spans_decades = bool(shown) and min(shown) > 0 and max(shown) > 50 * min(shown)
    if spans_decades and (name == "lr" or "loss" in name):
        axes.set_yscale("log")
        has_few_labels = max(shown) < 1000 * min(shown)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if has_few_labels else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(name, loc="left", fontsize=10, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    margin = max(0.5, 0.015 * (places[-1] - places[0]))
    axes.set_xlim(places[0] - margin, places[-1] + margin)
    axes.grid(color=FAINT, linewidth=0.7)
    lighten(axes)


def plot_rate_search(
    rates: Sequence[float],
    losses: Sequence[float],
    path: Path,
    *,
    title: str,
    suggestion: float | None,
) -> None:
    """Draw the loss over the learning rate it was reached with; mark the suggested one.

    Raises:
        WriteError: the file cannot be written.
    """
    figure = new_figure(7.0, 3.6)
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=TRAIN, linewidth=1.8)
    if suggestion is not None:
        axes.axvline(suggestion, label=f"suggestion: {suggestion:g}", **BEST)
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate", color=INK)
    axes.grid(color=FAINT, linewidth=0.7)
    lighten(axes)
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK)
    save_figure(figure, path)


def plot_confusion_matrix(matrix: Any, labels: Sequence[str], path: Path) -> None:
    """Draw what `draw_confusion_matrix` does into a file.

    Raises:
        WriteError: the file cannot be written.
    """
    write_atomic(path, draw_confusion_matrix(matrix, labels))


def draw_confusion_matrix(matrix: Any, labels: Sequence[str], *, dpi: int = DPI) -> bytes:
    """Return a picture of a (K, K) matrix of counts, rows the true classes, columns the predicted.

    The shade is the share of its row, so that rare classes show too; counts stand in the cells up
    to 30 classes.
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(matrix)
    num_classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(3.4 + 0.34 * num_classes, 13.0)
    figure = new_figure(size + 0.9, size, dpi)
    axes = figure.add_subplot()
    # The root of the share brings out confusions of a few per cent.
    shade = PowerNorm(0.5, vmin=0.0, vmax=1.0)
    image = axes.imshow(shares, cmap="Blues", norm=shade, interpolation="nearest")
    bar = figure.colorbar(
        image, ax=axes, fraction=0.05, aspect=35, pad=0.02, ticks=[0, 0.05, 0.25, 0.5, 1]
    )
    bar.set_label("share of the true class", color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=INK, labelsize=8)
    _label_classes(axes, labels, cell=0.85 * size / max(num_classes, 1))
    if num_classes <= MAX_NUMBERED_CLASSES:
        _write_counts(axes, counts, shares)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(
        f"accuracy {accuracy:.4g} of {counts.sum():,}", loc="left", fontsize=10, color=INK
    )
    return _png(figure)


def _label_classes(axes: "Axes", labels: Sequence[str], *, cell: float) -> None:
    ticks = range(0, len(labels), math.ceil(len(labels) / MAX_TICK_LABELS))
    texts = [_shortened(str(labels[tick])) for tick in ticks]
    is_wide = max(map(len, texts)) * 0.09 > cell * ticks.step  # inches
    axes.set_xticks(ticks, texts, rotation=90 if is_wide else 0)
    axes.set_yticks(ticks, texts)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    lighten(axes)
    axes.tick_params(labelsize=9 if len(labels) <= 12 else 7.5)


def _shortened(label: str) -> str:
    return label if len(label) <= MAX_LABEL_LENGTH else label[: MAX_LABEL_LENGTH - 1] + "…"


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray) -> None:
    edges = np.arange(len(counts) - 1) + 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0)
    num_digits = max(len(str(counts.max())), 2)
    size = min(9.0, 0.34 * 72 / (0.62 * num_digits) * 0.8)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.3 else INK
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def plot_image_sheet(images: Any, titles: Sequence[str], path: Path, *, columns: int = 8) -> None:
    """Draw what `draw_image_sheet` does into a file.

    Raises:
        WriteError: the file cannot be written.
    """
    write_atomic(path, draw_image_sheet(images, titles, columns=columns))


def draw_image_sheet(
    images: Any, titles: Sequence[str], *, columns: int = 8, dpi: int = DPI
) -> bytes:
    """Return a picture of images (N, C, H, W), each scaled to its own range, under their titles.

    One channel is shown in grey, three in colour, any other number by their mean.
    """
    shown = scaled_for_viewing(images)
    num_columns = max(min(columns, len(shown)), 1)
    num_rows = max(math.ceil(len(shown) / num_columns), 1)
    height = 1.25 * shown.shape[1] / shown.shape[2] + 0.22
    figure = new_figure(1.25 * num_columns, height * num_rows, dpi)
    for position, (image, title) in enumerate(zip(shown, titles, strict=True), start=1):
        axes = figure.add_subplot(num_rows, num_columns, position)
        axes.imshow(image, interpolation="nearest")
        axes.set_title(_shortened(title), fontsize=8, color=INK, pad=3)
        axes.set_axis_off()
    return _png(figure)


def scaled_for_viewing(images: Any) -> np.ndarray:
    """Return images (N, C, H, W) as (N, H, W, 3) within 0..1, each over its own range."""
    if hasattr(images, "detach"):
        images = images.detach().float().cpu()
    pixels = np.nan_to_num(np.asarray(images, dtype=np.float32), posinf=0.0, neginf=0.0)
    if pixels.shape[1] != 3:
        pixels = pixels.mean(axis=1, keepdims=True).repeat(3, axis=1)
    low = pixels.min(axis=(1, 2, 3), keepdims=True)
    span = pixels.max(axis=(1, 2, 3), keepdims=True) - low
    return ((pixels - low) / np.where(span > 0, span, 1)).transpose(0, 2, 3, 1)


def new_figure(width: float, height: float, dpi: int = DPI) -> "Figure":
    """Return an empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")


def lighten(axes: "Axes") -> None:
    """Take frame and tick marks away."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=INK, which="both")


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all; WriteError where the file cannot be written."""
    write_atomic(path, _png(figure))


def _png(figure: "Figure") -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
