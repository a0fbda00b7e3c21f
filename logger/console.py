"""Log lines and progress bars on the console and in train.log."""

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from base.checkpoint.files import write_error

VERBOSITY = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal for a live bar

log = logging.getLogger("train")
_handlers: list[logging.Handler] = []  # those of the last `setup_logging`


def setup_logging(
    log_file: Path | None, *, verbosity: int = 2, is_main: bool = True
) -> logging.Logger:
    """Send the project's logger, "train", to the console and to `log_file`, and return it.

    The console shows plain messages: warnings only at `verbosity` 0, information at 1, all at 2;
    the file gets all of them with their time, and first what was logged since the last call. A
    process that `is_main` is false for shows warnings and writes no file. Calling it again
    replaces what the last call set up.

    Raises:
        WriteError: `log_file` cannot be opened.
    """
    console = _Console(VERBOSITY[verbosity if is_main else 0])
    if log_file is None or not is_main:
        record = MemoryHandler(sys.maxsize, flushLevel=sys.maxsize)  # for a log file to come
    else:
        record = _LogFile(log_file)
    for handler in _handlers:
        if isinstance(handler, MemoryHandler) and isinstance(record, _LogFile):
            handler.setTarget(record)
        log.removeHandler(handler)
        handler.close()
    _handlers[:] = console, record
    for handler in _handlers:
        log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False  # notebooks put a handler on the root, which would repeat every line
    return log


class _Console(logging.Handler):
    """Shows messages on the present stdout, which notebooks replace, around a live bar."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()  # a traceback is for the file
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except (OSError, ValueError):  # a pipe whose reader is gone
            self.handleError(record)


class _LogFile(logging.FileHandler):
    """Writes train.log; when it can no longer be written it says so once and the run goes on."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, encoding="utf-8")
        except OSError as error:
            raise write_error(path, error) from error
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        log.removeHandler(self)
        with suppress(OSError):
            self.close()
        log.warning("%s; it ends here", write_error(Path(self.baseFilename), error))


def format_values(values: Mapping[str, Any]) -> str:
    """Return `loss 0.1234  accuracy 0.98`: four significant digits of what is a float."""
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


class ProgressBar(tqdm):
    """The samples of one epoch: a live bar in a terminal or a notebook, else now and then a line.

    `total` is the number of samples, `initial` those seen before. `update(n)` may be called every
    step; text is formed only in `show(loss=...)`, which the loop calls at its log interval.
    """

    monitor_interval = 0  # no thread of tqdm's own: data workers are forked from this process

    def __init__(
        self, total: int | None, *, description: str, initial: int = 0, enabled: bool = True
    ) -> None:
        is_live = sys.stderr.isatty() or "ipykernel" in sys.modules
        super().__init__(
            total=total, desc=description, initial=initial, disable=not (enabled and is_live),
            unit=" samples", leave=False, dynamic_ncols=True,
        )  # fmt: skip
        self._shows_lines = enabled and not is_live
        self._description, self._initial = description, initial
        self._started = time.monotonic()
        self._next_line = self._started + SECONDS_BETWEEN_LINES

    def update(self, num_samples: int) -> None:
        """Count `num_samples` more."""
        if self.disable:
            self.n += num_samples
        else:
            super().update(num_samples)

    def show(self, **values: float) -> None:
        """Put the values beside the bar, to be seen when it is next drawn."""
        if not self.disable:
            self.set_postfix_str(format_values(values), refresh=False)
        elif self._shows_lines and (now := time.monotonic()) >= self._next_line:
            self._next_line = now + SECONDS_BETWEEN_LINES
            speed = (self.n - self._initial) / max(now - self._started, 1e-9)
            done = f"{self._description}  {self.n}/{self.total or '?'} samples"
            log.info("%s  %s  %.0f samples/s", done, format_values(values), speed)
