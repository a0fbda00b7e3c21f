"""Figures are drawn for every size of run and matrix, without pyplot."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from base.base_writer import ResumedFrom
from base.errors import WriteError
from logger import RunDirectory
from logger.csv_writer import CsvWriter
from logger.plots.figures import draw_confusion_matrix, draw_image_sheet
from logger.plots.plots_writer import PlotsWriter, _best_epoch, _quantities, plot_curves


def rows(num_epochs, **values):
    return [
        {"epoch": epoch, "step": epoch, "seconds": 1.0, "lr": 0.1**epoch, "loss": 1 / epoch}
        | values
        for epoch in range(1, num_epochs + 1)
    ]


def size(data):
    """Return the width and height that a PNG file states."""
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


@pytest.mark.parametrize(
    "table",
    [
        rows(1),
        rows(4, val_loss=0.5, val_only=1.0),
        rows(3, loss=math.nan, val_loss=math.inf),
        rows(3)[:2] + rows(3, val_loss=0.5)[2:],
        rows(2, **{f"metric_{number}": 0.5 for number in range(20)}),
    ],
    ids=["one epoch", "validation", "nothing finite", "validation begins late", "many metrics"],
)
def test_curves_are_drawn_for_any_table(tmp_path, table):
    plot_curves(table, tmp_path / "curves.png", title="tiny")
    assert min(size((tmp_path / "curves.png").read_bytes())) > 300


def test_there_is_one_panel_per_quantity_with_loss_first_and_lr_last():
    table = [{"epoch": 1, "lr": 1, "acc": 1, "loss": 1, "val_loss": 1, "val_f1": 1}]
    assert _quantities(table) == ["loss", "acc", "f1", "lr"]


@pytest.mark.parametrize(
    ("monitor", "best"),
    [("min x", 2), ("max x", 4), ("off", 0), ("min nothing", 0)],
)
def test_the_best_epoch_is_the_first_of_equals_and_never_nan(monitor, best):
    values = [math.nan, 1.0, 1.0, 3.0, math.nan]
    table = [{"epoch": epoch, "x": value} for epoch, value in enumerate(values, start=1)]
    assert _best_epoch(table, monitor) == best


@pytest.mark.parametrize("num_classes", [2, 10, 31, 1000])
def test_a_confusion_matrix_gets_a_pixel_per_class_and_more(num_classes):
    matrix = np.eye(num_classes, dtype=int) * 7
    labels = [f"a class of a rather long name {number}" for number in range(num_classes)]
    assert min(size(draw_confusion_matrix(matrix, labels))) > 1.2 * num_classes


def test_a_confusion_matrix_of_nothing_is_drawn():
    assert size(draw_confusion_matrix(torch.zeros(2, 2, dtype=torch.int64), ["a", "b"]))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_an_image_sheet_has_rows_of_eight(channels):
    images = torch.randn(9, channels, 6, 6)
    nine = size(draw_image_sheet(images, [str(number) for number in range(9)]))
    eight = size(draw_image_sheet(images[:8], [str(number) for number in range(8)]))
    assert nine[0] == eight[0]
    assert nine[1] == pytest.approx(2 * eight[1], abs=1)


def test_a_figure_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "gone" / "curves.png"
    with pytest.raises(WriteError, match=f"{path}: cannot be written: No such file"):
        plot_curves(rows(1), path, title="tiny")


def test_a_run_leaves_the_curves_of_all_its_epochs(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "logger.plots.plots_writer.plot_curves",
        lambda rows, path, **more: drawn.append((rows, path.name, more)),
    )
    run = RunDirectory(tmp_path / "one")
    run.path.mkdir()
    csv = CsvWriter(run=run)
    for row in rows(3):
        csv.log_epoch(row)
    config = {"name": "tiny", "trainer": {"monitor": "min loss"}}
    writer = PlotsWriter(run=run, config=config, resume=ResumedFrom(2, 2))
    writer.log_epoch(rows(3)[2])
    writer.finish({})
    [(table, name, more)] = drawn
    assert [row["epoch"] for row in table] == [1, 2, 3]
    assert [row["loss"] for row in table] == pytest.approx([1, 1 / 2, 1 / 3])
    assert (name, more) == ("curves.png", {"title": "tiny  one", "monitor": "min loss"})


def test_the_package_is_imported_without_what_only_some_of_it_needs():
    code = """
import sys, base.errors
before = set(sys.modules)
import logger.plots.plots_writer, logger.tensorboard_writer
heavy = {"tensorboard", "torch.utils.tensorboard", "matplotlib", "pandas", "sklearn", "wandb"}
print(sorted((set(sys.modules) - before) & heavy))
from logger.plots.figures import draw_confusion_matrix, draw_image_sheet
draw_confusion_matrix([[1, 0], [0, 1]], "ab")
print("matplotlib.pyplot" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert output.splitlines() == ["[]", "False"]
