"""The rows of metrics.csv as they are read back."""

import csv
import errno
import math
import os

import pytest

from base.base_writer import ResumedFrom
from base.errors import WriteError
from logger import RunDirectory, setup_logging
from logger.csv_writer import CsvWriter


@pytest.fixture
def run(tmp_path):
    setup_logging(None)
    return RunDirectory(tmp_path)


@pytest.fixture
def path(run):
    return run.metrics_file


def row(epoch, **values):
    return {"epoch": epoch, "step": 10 * epoch, "loss": 0.1 + 0.2 / epoch, **values}


def read_rows(path):
    with open(path, newline="") as file:
        return [
            {name: float(cell) for name, cell in cells.items() if cell}
            for cells in csv.DictReader(file)
        ]


def resumed(run, epoch):
    return CsvWriter(run=run, resume=ResumedFrom(epoch, 10 * epoch))


def test_a_row_is_complete_on_the_disk_at_once_and_reads_back_exactly(run, path):
    writer = CsvWriter(run=run)
    writer.log_epoch(row(1))
    assert path.read_text() == "epoch,step,loss\n1,10,0.30000000000000004\n"
    writer.log_epoch(row(2, loss=math.inf))
    assert read_rows(path) == [row(1), row(2, loss=math.inf)]


def test_the_first_row_fixes_the_columns(run, path, capsys):
    CsvWriter(run=run).log_epoch(row(1, val_loss=0.5))
    writer = resumed(run, 1)
    writer.log_epoch(row(2))
    writer.log_epoch(row(3, val_loss=0.25, accuracy=1.0))
    assert "metrics.csv has no column for accuracy" in capsys.readouterr().out
    assert read_rows(path) == [row(1, val_loss=0.5), row(2), row(3, val_loss=0.25)]


def test_a_resume_drops_later_rows_and_a_torn_line(run, path):
    writer = CsvWriter(run=run)
    for epoch in (1, 2, 3):
        writer.log_epoch(row(epoch))
    whole = path.read_text()
    path.write_text(whole + "4,40,0.1")
    resumed(run, 4)
    assert path.read_text() == whole
    resumed(run, 2).log_epoch(row(3))
    assert path.read_text() == whole


@pytest.mark.parametrize("left", ["epo", "epoch,step,loss\n", "epoch,step,loss\n1,1"])
def test_without_a_row_to_keep_the_columns_are_free_again(run, path, left):
    path.write_text(left)
    CsvWriter(run=run)
    writer = CsvWriter(run=run)
    assert not path.exists()
    writer.log_epoch(row(1, accuracy=0.5))
    assert read_rows(path) == [row(1, accuracy=0.5)]


def test_kept_rows_stay_as_they_are_and_what_has_no_epoch_goes(run, path):
    path.write_text("epoch,loss\n1,0.50\n\nx,0.5\n2,0.25\n")
    resumed(run, 2)
    assert path.read_text() == "epoch,loss\n1,0.50\n2,0.25\n"


def test_a_full_disk_is_a_write_error_and_the_run_can_go_on_later(run, path, monkeypatch):
    writer = CsvWriter(run=run)
    writer.log_epoch(row(1))

    def full(descriptor):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 3)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(WriteError, match=r"metrics.csv: cannot be written: No space left"):
            writer.log_epoch(row(2))
    resumed(run, 1).log_epoch(row(2))
    assert read_rows(path) == [row(1), row(2)]
