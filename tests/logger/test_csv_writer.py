"""The rows of metrics.csv as they are read back."""

import errno
import os

import pytest
import torch

from base.errors import DataError, WriteError
from logger import setup_logging
from logger.csv_writer import CsvWriter


def row(epoch, **values):
    return {"epoch": epoch, "step": 10 * epoch, "loss": 0.1 + 0.2 / epoch, **values}


def test_a_row_is_complete_on_the_disk_at_once_and_reads_back_exactly(tmp_path):
    writer = CsvWriter(tmp_path / "metrics.csv")
    writer.write(row(1))
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step,loss\n1,10,0.30000000000000004\n"
    writer.write(row(2, loss=torch.tensor(0.1)))
    assert writer.rows() == [row(1), row(2, loss=float(torch.tensor(0.1)))]
    assert isinstance(writer.rows()[0]["epoch"], int)


def test_the_first_row_fixes_the_columns(tmp_path, capsys):
    setup_logging(None)
    CsvWriter(tmp_path / "metrics.csv").write(row(1, val_loss=0.5))
    writer = CsvWriter(tmp_path / "metrics.csv")  # as after a resume
    writer.write(row(2))
    writer.write(row(3, val_loss=0.25, accuracy=1.0))
    assert "metrics.csv has no column for accuracy" in capsys.readouterr().out
    assert writer.rows() == [row(1, val_loss=0.5), row(2), row(3, val_loss=0.25)]


def test_cutting_back_drops_later_rows_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.csv"
    writer = CsvWriter(path)
    for epoch in (1, 2, 3):
        writer.write(row(epoch))
    whole = path.read_text()
    path.write_text(whole + "4,40,0.1")
    assert len(writer.rows()) == 3
    writer.cut_back(4)
    assert path.read_text() == whole
    writer.cut_back(2)
    writer.write(row(3))
    assert path.read_text() == whole


@pytest.mark.parametrize("left", ["epo", "epoch,step,loss\n", "epoch,step,loss\n1,1"])
def test_without_a_row_to_keep_the_columns_are_free_again(tmp_path, left):
    path = tmp_path / "metrics.csv"
    path.write_text(left)
    writer = CsvWriter(path)
    writer.cut_back(0)
    writer.cut_back(0)
    assert not path.exists()
    writer.write(row(1, accuracy=0.5))
    assert writer.rows() == [row(1, accuracy=0.5)]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,0.5\n2,x\n")
    with pytest.raises(DataError, match=r"metrics.csv:3: expected 2 numbers, found '2,x'"):
        CsvWriter(tmp_path / "metrics.csv").rows()


def test_a_full_disk_is_a_write_error_and_the_run_can_go_on_later(tmp_path, monkeypatch):
    writer = CsvWriter(tmp_path / "metrics.csv")
    writer.write(row(1))

    def full(descriptor):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 3)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(WriteError, match=r"metrics.csv: cannot be written: No space left"):
            writer.write(row(2))
    writer.cut_back(1)
    writer.write(row(2))
    assert writer.rows() == [row(1), row(2)]
