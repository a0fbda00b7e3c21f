"""Atomic file writes: a temporary file in the same folder, fsync, verify, rename, fsync."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from base.errors import WriteError

TEMPORARY = ".tmp"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Put a file in its place whole or not at all, and on the disk before this returns.

    Raises:
        WriteError: the disk is full or the place cannot be written; what was there is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(data)
            sync(file)
        if temporary.read_bytes() != data:
            raise OSError("what was written reads back differently")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a file; it takes the place of `path` if nothing fails in the context.

    Raises:
        WriteError: there was an OSError; what was at `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.unlink(missing_ok=True)  # left by a killed process, it may be a link to `path`
        yield temporary
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(file: IO) -> None:
    """Wait until what was written to a file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if they are not there; raise WriteError if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> WriteError:
    """Return the error that names `path` and says why it could not be written."""
    return WriteError(f"{path}: cannot be written: {error.strerror or error}")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a network disk that cannot
            raise
    finally:
        os.close(descriptor)
