"""The results of a run's epochs as a CSV file."""

import csv
import io
import logging
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from base.checkpoint.files import write_atomic, write_error
from base.errors import DataError

LOG = logging.getLogger("train")


class CsvWriter:
    """metrics.csv: one row per epoch, on the disk before `write` returns; its first row fixes the
    columns. Floats are written so that they read back exactly."""

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._columns: list[str] = []

    def write(self, row: Mapping[str, float | int]) -> None:
        """Append a row.

        Raises:
            WriteError: the disk is full or the file cannot be written.
        """
        columns = self._columns or self._read()[0]
        if not columns:
            self._append(_lines(list(row), [row]))
            self._columns = list(row)
            return
        if unknown := row.keys() - set(columns):
            LOG.warning("%s has no column for %s", self._path, ", ".join(sorted(unknown)))
        self._append(_lines(columns, [row], header=False))
        self._columns = columns

    def cut_back(self, epoch: int) -> None:
        """Keep the rows up to and including `epoch`; a last line that was never finished goes.

        Raises:
            DataError: a line is not one that `write` left.
            WriteError: the shorter file cannot be written.
        """
        columns, _ = self._read()
        kept = [row for row in self.rows() if row["epoch"] <= epoch]
        self._columns = columns if kept else []
        if kept:
            write_atomic(self._path, _lines(columns, kept))
        else:
            self._path.unlink(missing_ok=True)

    def rows(self) -> list[dict[str, float]]:
        """Return the finished rows, without their empty cells.

        Raises:
            DataError: a line is not one that `write` left.
        """
        columns, lines = self._read()
        rows = []
        for number, cells in enumerate(lines, start=2):
            try:
                pairs = zip(columns, cells, strict=True)
                rows.append({name: _number(cell) for name, cell in pairs if cell})
            except ValueError:
                raise DataError(
                    f"{self._path}:{number}: expected {len(columns)} numbers, "
                    f"found {','.join(cells)!r}; mend or remove the line"
                ) from None
        return rows

    def _read(self) -> tuple[list[str], list[list[str]]]:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return [], []
        finished = text.rpartition("\n")[0]
        header, *lines = list(csv.reader(finished.splitlines())) or [[]]
        return header, lines

    def _append(self, text: str) -> None:
        try:
            with open(self._path, "a", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self._path, error) from error


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
