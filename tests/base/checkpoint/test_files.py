"""Atomic file writes: the new file whole, or the old one and nothing else."""

import errno
import os

import pytest

from base.checkpoint.files import write_atomic
from base.errors import WriteError


def fail(failure: BaseException):
    def failing(*args, **kwargs):
        raise failure

    return failing


def test_text_and_bytes_are_written_and_replaced(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken, failure):
    path = tmp_path / "file"
    write_atomic(path, "old")
    monkeypatch.setattr(os, broken, fail(failure))
    with pytest.raises((WriteError, KeyboardInterrupt)) as caught:
        write_atomic(path, "new")
    if isinstance(failure, OSError):
        assert str(caught.value) == f"{path}: cannot be written: No space"
        assert caught.value.exit_code == 4
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_what_reads_back_differently_is_not_put_in_place(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")
    monkeypatch.setattr("os.fsync", lambda number: os.pwrite(number, b"N", 0))
    with pytest.raises(WriteError, match="what was written reads back differently"):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(WriteError, match=r"none/file: cannot be written: No such file"):
        write_atomic(tmp_path / "none" / "file", "text")


@pytest.mark.parametrize(("number", "is_error"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_disk_that_cannot_sync_a_folder_is_no_failure(tmp_path, monkeypatch, number, is_error):
    sync = os.fsync

    def failing_for_folders(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing_for_folders)
    if is_error:
        with pytest.raises(WriteError, match="Input/output error"):
            write_atomic(tmp_path / "file", "text")
    else:
        write_atomic(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
