"""The results of a run's epochs as a CSV file."""

import csv
import logging
from collections.abc import Mapping

from base.base_writer import BaseWriter, ResumedFrom
from base.checkpoint.files import sync, write_atomic, write_error
from base.registry import WRITERS
from logger.run_directory import RunDirectory

log = logging.getLogger("train")


@WRITERS.register("csv")
class CsvWriter(BaseWriter):
    """Appends a row per epoch to metrics.csv, on the disk before `log_epoch` returns.

    The first row fixes the columns. Floats read back exactly. On a resume rows of later epochs go,
    and so does a line that was never finished.

    Raises:
        WriteError: the disk is full or the file cannot be written.
    """

    on_by_default = True
    required = True

    def __init__(self, *, run: RunDirectory, resume: ResumedFrom | None = None) -> None:
        self._path = run.metrics_file
        self._columns: list[str] = []
        lines: list[str] = []
        if resume and self._path.exists():
            text = self._path.read_text(encoding="utf-8", errors="replace")
            lines = text.split("\n")[:-1]  # what follows the last \n was never finished
        if kept := [line for line in lines if _is_row(line, until=resume.epoch)]:
            self._columns = next(csv.reader(lines))
            write_atomic(self._path, "\n".join([lines[0], *kept, ""]))
        else:
            self._path.unlink(missing_ok=True)

    def log_epoch(self, row: Mapping[str, float | int]) -> None:
        is_first = not self._columns
        self._columns = self._columns or [*row]
        if unknown := row.keys() - set(self._columns):
            log.warning("%s has no column for %s", self._path, ", ".join(sorted(unknown)))
        try:
            with open(self._path, "a", encoding="utf-8", newline="") as file:
                style = {"extrasaction": "ignore", "lineterminator": "\n"}
                writer = csv.DictWriter(file, self._columns, **style)
                if is_first:
                    writer.writeheader()
                writer.writerow(row)
                sync(file)
        except OSError as error:
            raise write_error(self._path, error) from error


def _is_row(line: str, *, until: int) -> bool:
    epoch = line.partition(",")[0]
    return epoch.isdigit() and int(epoch) <= until
