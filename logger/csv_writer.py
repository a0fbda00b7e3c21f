"""The results of a run's epochs as a CSV file."""

import csv
import io
import logging
import os
from collections.abc import Iterable, Mapping
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

    The first row fixes the columns. Floats read back exactly. On a resume rows of later epochs go,
    and so does a last line that was never finished.

    Raises:
        DataError: a line is not one that a run left.
        WriteError: the disk is full or the file cannot be written.
    """

    on_by_default = True
    required = True

    def __init__(self, *, run: RunDirectory, resume: ResumedFrom | None = None) -> None:
        self._path = run.metrics_file
        rows = _read(self._path)
        kept = [row for row in rows if resume and row["epoch"] <= resume.epoch]
        self._columns = [*kept[0]] if kept else []
        if kept:
            write_atomic(self._path, self._format(kept, header=True))
        else:
            self._path.unlink(missing_ok=True)

    def log_epoch(self, row: Mapping[str, float | int]) -> None:
        is_first = not self._columns
        self._columns = self._columns or [*row]
        if unknown := row.keys() - set(self._columns):
            log.warning("%s has no column for %s", self._path, ", ".join(sorted(unknown)))
        try:
            with open(self._path, "a", encoding="utf-8", newline="") as file:
                file.write(self._format([row], header=is_first))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self._path, error) from error

    def _format(self, rows: Iterable[Mapping[str, float | None]], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the finished rows of a metrics.csv, without their empty cells; [] without a file.

    Raises:
        DataError: a line is not one that a run left.
    """
    return [{k: v for k, v in row.items() if v is not None} for row in _read(path)]


def _read(path: Path) -> list[dict[str, float | None]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = text.rpartition("\n")[0].splitlines()
    rows = []
    for number, cells in enumerate(csv.DictReader(lines), start=2):
        try:
            rows.append({name: _number(cell) for name, cell in cells.items()})
        except (
            AttributeError,
            ValueError,
        ):  # cells too many (a list) or too few (None), or no number
            raise DataError(
                f"{path}:{number}: expected a number for each column, "
                f"found {lines[number - 1]!r}; mend or remove the line"
            ) from None
    return rows


def _number(cell: str) -> float | None:
    if not cell.strip("-0123456789"):
        return int(cell) if cell else None
    return float(cell)
