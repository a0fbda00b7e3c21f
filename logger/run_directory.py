"""Name, lock and find run directories."""

import logging
import os
import weakref
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from base.checkpoint.files import write_error
from base.config.schema import NAME
from base.errors import UsageError

log = logging.getLogger("train")

RUN_ID_FORMAT = "%Y-%m-%d_%H-%M-%S-%f"  # sorts by time; the last field is microseconds


class RunDirectory:
    """saved/<name>/<run_id>/ and the names of what lies in it; constructing one touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.run_id = self.path.name
        self.config_file = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.metrics_file = self.path / "metrics.csv"
        self.log_file = self.path / "train.log"
        self.summary_file = self.path / "summary.json"
        self._lock_file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Make the folder and keep it for this process until `release`, or until the process ends.

        Raises:
            UsageError: another process, or another part of this one, has it.
            WriteError: the folder or the lock in it cannot be written.
        """
        if self._lock_file is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = self._lock_file = (self.path / ".lock").open("a+b", buffering=0)
            if not _lock(file):
                file.seek(0)
                pid = file.read().decode().strip()
                self.release()
                raise UsageError(f"{self.path} is in use by another process (pid {pid})")
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        except OSError as error:
            self.release()
            raise write_error(self.path, error) from error
        _close_after_fork(file)

    def release(self) -> None:
        """Let another process have the run; harmless when it is not held."""
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


def _lock(file: IO[bytes]) -> bool:
    """Lock `file` until it is closed, unless another process has it; return whether it is ours."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 30)  # far behind the pid, which others must be able to read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        log.warning("%s cannot be locked (%s): start no second process", file.name, error.strerror)
    return True


def _close_after_fork(file: IO[bytes]) -> None:
    """Keep a forked data worker, which outlives a killed parent by seconds, from holding on."""
    reference = weakref.ref(file)

    def close_in_child() -> None:
        if (held := reference()) is not None:
            held.close()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close_in_child)


def new_run_id() -> str:
    """Return the local time to the microsecond: `2026-11-21_23-30-59-123456`."""
    return datetime.now().strftime(RUN_ID_FORMAT)


def acquire_new(parent: Path) -> RunDirectory:
    """Make a run directory that did not exist before in `parent`, and acquire it.

    Raises:
        WriteError: the directory cannot be made.
    """
    while True:
        run = RunDirectory(Path(parent) / new_run_id())
        if not os.path.exists(run.path):
            with suppress(UsageError):  # another process's, of the same microsecond
                run.acquire()
                return run


def check_run_id(run_id: str) -> None:
    """Raise a UsageError unless `run_id` is safe as the name of one folder."""
    if not NAME.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r}: expected 1 to 100 letters, digits, '.', '_' or '-', "
            "the first of them no '.' or '-'"
        )


def newest_run(path: Path, *, trained: bool = False) -> RunDirectory | None:
    """Return the run at `path` (it has a config.yaml), or the newest run in it, or None.

    With `trained` only those in it count that have a checkpoint. A run's age is the start time in
    its name; under a name of the user's, that of its config.yaml.
    """
    run = RunDirectory(path)
    if run.config_file.is_file():
        return run
    runs = [RunDirectory(file.parent) for file in run.path.glob("*/config.yaml")]
    if trained:
        runs = [run for run in runs if any(run.checkpoints.glob("*.pth"))]
    return max(runs, key=_start_time, default=None)


def _start_time(run: RunDirectory) -> float:
    try:
        return datetime.strptime(run.run_id, RUN_ID_FORMAT).timestamp()
    except ValueError:
        return run.config_file.stat().st_mtime
