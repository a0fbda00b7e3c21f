"""Files that are whole or absent."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from base.errors import WriteError

TEMPORARY = ".tmp"
CHUNK = 2**20  # bytes read back at once, so that a large checkpoint is not in memory once more


def write_atomic(path: Path, content: str | bytes) -> None:
    """Put a file in its place whole or not at all, and on the disk before this returns.

    Raises:
        WriteError: the disk is full or the place cannot be written; what was there is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not _holds(temporary, data):
            raise OSError("what was written reads back differently")
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _holds(path: Path, data: bytes) -> bool:
    with open(path, "rb") as file:  # one more chunk, so that a longer file is found
        starts = range(0, len(data) + 1, CHUNK)
        return all(file.read(CHUNK) == data[start : start + CHUNK] for start in starts)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        WriteError: the place cannot be written.
    """
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
