"""The results of a run's epochs as a CSV file."""

import csv
import io
import logging
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from base.base_writer import BaseWriter, ResumedFrom
from base.checkpoint.files import write_atomic, write_error
from base.errors import DataError
from base.registry import WRITERS
from logger.run_directory import RunDirectory

log = logging.getLogger("train")


@WRITERS.register("csv")
class CsvWriter(BaseWriter):
    """Appends a row per epoch to metrics.csv, on the disk before `log_epoch` returns.

    The first row fixes the columns. Floats are written so that they read back exactly. On a resume
    rows of later epochs go, and so does a last line that was never finished.

    Raises:
        DataError: a line is not one that a run left.
        WriteError: the disk is full or the file cannot be written.
    """

    on_by_default = True
    required = True

    def __init__(self, *, run: RunDirectory, resume: ResumedFrom | None = None) -> None:
        self._path = run.metrics_file
        self._columns: list[str] = []
        self._cut_back(resume.epoch if resume else 0)

    def log_epoch(self, row: Mapping[str, float | int]) -> None:
        if not self._columns:
            self._append(_lines(list(row), [row]))
            self._columns = list(row)
            return
        if unknown := row.keys() - set(self._columns):
            log.warning("%s has no column for %s", self._path, ", ".join(sorted(unknown)))
        self._append(_lines(self._columns, [row], header=False))

    def _cut_back(self, epoch: int) -> None:
        kept = [row for row in read_rows(self._path) if row["epoch"] <= epoch]
        if kept:
            self._columns, _ = _read_cells(self._path)
            write_atomic(self._path, _lines(self._columns, kept))
        else:
            self._path.unlink(missing_ok=True)

    def _append(self, text: str) -> None:
        try:
            with open(self._path, "a", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self._path, error) from error


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the finished rows of a metrics.csv, without their empty cells; [] without a file.

    Raises:
        DataError: a line is not one that a run left.
    """
    columns, lines = _read_cells(path)
    rows = []
    for number, cells in enumerate(lines, start=2):
        try:
            pairs = zip(columns, cells, strict=True)
            rows.append({name: _number(cell) for name, cell in pairs if cell})
        except ValueError:
            raise DataError(
                f"{path}:{number}: expected {len(columns)} numbers, "
                f"found {','.join(cells)!r}; mend or remove the line"
            ) from None
    return rows


def _read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return [], []
    finished = text.rpartition("\n")[0]
    header, *lines = list(csv.reader(finished.splitlines())) or [[]]
    return header, lines


def _lines(
    columns: Sequence[str], rows: Sequence[Mapping[str, float]], *, header: bool = True
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, numbers.Integral) else repr(float(value))


def _number(cell: str) -> float:
    try:
        return int(cell)
    except ValueError:
        return float(cell)
