"""Log lines and progress bars on the console and in train.log."""

import logging
import logging.handlers
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from base.checkpoint.files import write_error

VERBOSITY = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal for a live bar
NOT_RESULTS = ("epoch", "step", "seconds", "samples_per_second", "lr")  # columns of a row

log = logging.getLogger("train")


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
    handlers: list[logging.Handler] = [_Console(VERBOSITY[verbosity if is_main else 0])]
    if log_file is None or not is_main:
        handlers.append(_Memory(sys.maxsize))
    else:
        try:
            handlers.append(_LogFile(log_file, encoding="utf-8"))
        except OSError as error:
            raise write_error(log_file, error) from error
    for handler in log.handlers[:]:
        if isinstance(handler, _Console | _LogFile | _Memory):
            if isinstance(handler, _Memory) and isinstance(handlers[1], _LogFile):
                handler.setTarget(handlers[1])
            log.removeHandler(handler)
            handler.close()
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False  # notebooks put a handler on the root, which would repeat every line
    return log


class _Console(logging.Handler):
    """Shows messages on the present stdout, which notebooks replace, around a live bar."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except (OSError, ValueError):  # a pipe whose reader is gone
            self.handleError(record)


class _Memory(logging.handlers.MemoryHandler):
    """Keeps messages for the log file of a run that has no directory yet."""

    def shouldFlush(self, record: logging.LogRecord) -> bool:
        return False


class _LogFile(logging.FileHandler):
    """Writes train.log; when it can no longer be written it says so once and the run goes on."""

    def format(self, record: logging.LogRecord) -> str:
        return logging.Formatter("%(asctime)s %(levelname)-7s %(message)s").format(record)

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


class ProgressBar:
    """The samples of one epoch: a live bar in a terminal or a notebook, else now and then a line.

    `total` is the number of samples, `initial` those seen before. `update(n)` may be called every
    step; text is formed only in `show(loss=...)`, which the loop calls at its log interval.
    """

    def __init__(
        self, total: int | None, *, description: str, initial: int = 0, enabled: bool = True
    ) -> None:
        self._total, self._description, self._enabled = total, description, enabled
        self._initial = self._num_done = initial
        self._started = time.monotonic()
        self._next_line = self._started + SECONDS_BETWEEN_LINES
        self._bar = _live_bar(total, description, initial) if enabled else None
        if self._bar is not None:
            self.update = self._bar.update  # one call less per step

    def update(self, num_samples: int) -> None:
        """Count `num_samples` more."""
        self._num_done += num_samples

    def show(self, **values: float) -> None:
        """Put the values beside the bar, to be seen when it is next drawn."""
        if self._bar is not None:
            self._bar.set_postfix_str(format_values(values), refresh=False)
        elif self._enabled and (now := time.monotonic()) >= self._next_line:
            self._next_line = now + SECONDS_BETWEEN_LINES
            speed = (self._num_done - self._initial) / max(now - self._started, 1e-9)
            done = f"{self._description}  {self._num_done}/{self._total or '?'} samples"
            line = f"{done}  {format_values(values)}  {speed:.0f} samples/s"
            log.info("%s", line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _live_bar(total: int | None, description: str, initial: int) -> tqdm | None:
    from tqdm.auto import tqdm as auto_tqdm

    in_notebook = any(base.__module__ == "tqdm.notebook" for base in auto_tqdm.__mro__)
    if not (in_notebook or sys.stderr.isatty()):
        return None

    class Bar(auto_tqdm):
        monitor_interval = 0  # no thread of tqdm's own: data workers are forked from this process

    return Bar(
        total=total, desc=description, initial=initial,
        unit=" samples", leave=False, dynamic_ncols=True,
    )  # fmt: skip
