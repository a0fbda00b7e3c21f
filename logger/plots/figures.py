"""Figures in one style, as PNG files: confusion matrix, images."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from base.checkpoint.files import write_atomic
from logger.tensorboard_writer import scale_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

TRAIN, VALID = "#2f6fb0", "#e0742b"  # told apart with any colour vision, and in grey
INK, FAINT = "#333333", "#dddddd"
BEST = {"color": INK, "linewidth": 1.0, "linestyle": (0, (2, 2)), "zorder": 1.8}
DPI = 140  # a matrix of 1000 classes gets more than a pixel each
MAX_NUMBERED_CLASSES = 30
MAX_TICK_LABELS = 50
MAX_LABEL_LENGTH = 24
MAX_MATRIX_CLASSES = 1000  # a matrix of 10,000 takes 9 GiB and minutes


def draw_confusion_matrix(matrix: Any, labels: Sequence[str], *, dpi: int = DPI) -> bytes:
    """Return a PNG of a (K, K) matrix of counts, rows the true classes, columns the predicted.

    The shade is the root of a cell's share of its row: rare classes and confusions of a few per
    cent show too. Counts stand in the cells up to 30 classes.
    """
    counts = np.asarray(matrix)
    num_classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(3.4 + 0.34 * num_classes, 13.0)  # inches
    figure = new_figure(size, size, dpi)
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ticks = range(0, num_classes, math.ceil(num_classes / MAX_TICK_LABELS))
    names = [str(labels[tick])[:MAX_LABEL_LENGTH] for tick in ticks]
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(ticks, names)
    if num_classes <= MAX_NUMBERED_CLASSES:
        font_size = min(9.0, 32 / len(str(counts.max())))  # points, of 24 a cell
        style = {"ha": "center", "va": "center", "fontsize": font_size}
        for row, column in np.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.3 else INK
            axes.text(column, row, str(counts[row, column]), color=colour, **style)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    lighten(axes, f"accuracy {accuracy:.4g} of {counts.sum():,}", grid=False)
    return _to_png(figure)


def draw_image_sheet(
    images: "Tensor", titles: Sequence[str], *, columns: int = 8, dpi: int = DPI
) -> bytes:
    """Return a PNG of images (N, C, H, W), each scaled to its own range, under their titles.

    One channel is shown in grey, three in colour, any other number by their mean.
    """
    if images.shape[1] != 3:
        images = images.float().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    pixels = scale_images(images).permute(0, 2, 3, 1).numpy()
    num_columns = max(min(columns, len(pixels)), 1)
    num_rows = max(math.ceil(len(pixels) / num_columns), 1)
    height = 1.25 * pixels.shape[1] / pixels.shape[2] + 0.22
    figure = new_figure(1.25 * num_columns, height * num_rows, dpi)
    for position, (image, title) in enumerate(zip(pixels, titles, strict=True), start=1):
        axes = figure.add_subplot(num_rows, num_columns, position)
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title[:MAX_LABEL_LENGTH], fontsize=8, color=INK, pad=3)
        axes.set_axis_off()
    return _to_png(figure)


def new_figure(width: float, height: float, dpi: int = DPI) -> "Figure":
    """Return an empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")


def lighten(axes: "Axes", title: str = "", *, grid: bool = True) -> None:
    """Take frame and tick marks away, put `title` to the left, and draw a faint grid."""
    if grid:
        axes.grid(color=FAINT, linewidth=0.7)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=INK, which="both")


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all; WriteError where the file cannot be written."""
    write_atomic(path, _to_png(figure))


def _to_png(figure: "Figure") -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def add_png(events: "SummaryWriter", tag: str, png: bytes, step: int | None = None) -> None:
    """Show the content of a PNG file among TensorBoard's images."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = Image.open(io.BytesIO(png)).size
    image = Summary.Image(width=width, height=height, encoded_image_string=png)
    events.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
