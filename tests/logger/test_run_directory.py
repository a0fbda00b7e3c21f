"""The run directory: its names, its lock, and its ids."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from base.errors import UsageError, WriteError
from logger.console import setup_logging
from logger.run_directory import (
    RunDirectory,
    acquire_new,
    check_run_id,
    new_run_id,
    newest_run,
)

HOLD = """
import os, sys, time
from pathlib import Path
from logger.run_directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
run.acquire()
child = os.fork() if "fork" in sys.argv else 1
if child:
    print(os.getpid(), child, flush=True)
time.sleep(60)
"""


def start_holder(path, *options):
    """Start a process that holds the run and return it with the numbers it printed."""
    command = [sys.executable, "-c", HOLD, str(path), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    return holder, [int(pid) for pid in holder.stdout.readline().split()]


def test_constructing_a_run_directory_touches_nothing(tmp_path):
    run = RunDirectory(tmp_path / "saved" / "mnist" / "first")
    assert run.run_id == "first"
    assert run.metrics_file == run.path / "metrics.csv"
    assert list(tmp_path.iterdir()) == []


def test_acquire_makes_the_folder_and_can_be_repeated_by_its_holder(tmp_path):
    run = RunDirectory(tmp_path / "a" / "b")
    run.acquire()
    run.acquire()
    assert (run.path / ".lock").read_text() == f"{os.getpid()}\n"
    run.release()
    run.release()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    run = RunDirectory(tmp_path / "run")
    holder, (pid, _) = start_holder(run.path)
    try:
        with pytest.raises(UsageError, match=rf"run is in use by another process \(pid {pid}\)$"):
            run.acquire()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    run.acquire()
    run.release()


def test_a_worker_that_outlives_a_killed_process_does_not_keep_its_lock(tmp_path):
    run = RunDirectory(tmp_path / "run")
    holder, (_, child) = start_holder(run.path, "fork")
    try:
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # still there
        run.acquire()
        run.release()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_within_one_process_a_run_is_held_once_and_free_after_release(tmp_path):
    first, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    first.acquire()
    with pytest.raises(UsageError, match="is in use by another process"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run"
    with pytest.raises(WriteError, match=f"{path}: cannot be written: Not a directory"):
        RunDirectory(path).acquire()
    with pytest.raises(WriteError, match="cannot be written: Not a directory"):
        acquire_new(path)


def test_a_file_system_without_locks_costs_one_warning(tmp_path, monkeypatch, capsys):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    setup_logging(None)
    run = RunDirectory(tmp_path / "run")
    run.acquire()
    run.release()
    assert ".lock cannot be locked (No locks available)" in capsys.readouterr().out


def test_run_ids_of_one_instant_become_different_runs(tmp_path, monkeypatch):
    ids = iter(["same", "same", "same", "other", "third"])
    monkeypatch.setattr("logger.run_directory.new_run_id", lambda: next(ids))
    runs = [acquire_new(tmp_path) for _ in range(3)]
    assert [run.run_id for run in runs] == ["same", "other", "third"]
    for run in runs:
        run.release()


def test_runs_started_together_never_share_a_directory(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: acquire_new(tmp_path), range(40)))
    assert len({run.path for run in runs}) == 40
    for run in runs:
        run.release()


def test_run_ids_sort_by_time_and_are_valid_names():
    ids = [new_run_id() for _ in range(50)]
    assert ids == sorted(ids)
    for run_id in ids:
        check_run_id(run_id)


def test_a_link_to_nowhere_is_no_place_for_runs(tmp_path):
    (tmp_path / "saved").symlink_to(tmp_path / "nowhere")
    with pytest.raises(WriteError, match="cannot be written: File exists"):
        acquire_new(tmp_path / "saved")


@pytest.mark.parametrize("run_id", ["a", "A.b_c-9", "_x", "0" * 100])
def test_plain_names_are_run_ids(run_id):
    check_run_id(run_id)


@pytest.mark.parametrize("run_id", ["", ".", "..", "-r", "a/b", "a b", "ä", "0" * 101, "a\n"])
def test_other_names_are_refused_with_what_is_expected(run_id):
    with pytest.raises(UsageError, match="expected 1 to 100 letters, digits"):
        check_run_id(run_id)


def make_run(path, *, config_time=None):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("")
    if config_time is not None:
        os.utime(path / "config.yaml", (config_time, config_time))


def test_a_run_is_its_own_newest_run(tmp_path):
    make_run(tmp_path / "run")
    assert newest_run(tmp_path / "run").path == tmp_path / "run"


def test_the_newest_run_is_the_one_started_last(tmp_path):
    make_run(tmp_path / "2026-11-21_23-30-59-000000", config_time=2e9)
    make_run(tmp_path / "2026-11-22_01-00-00-000000", config_time=1e9)
    (tmp_path / "2027-01-01_00-00-00-000000").mkdir()  # never got a config
    assert newest_run(tmp_path).run_id == "2026-11-22_01-00-00-000000"
    make_run(tmp_path / "mine", config_time=4e9)
    assert newest_run(tmp_path).run_id == "mine"


def test_the_newest_trained_run_has_a_checkpoint(tmp_path):
    make_run(tmp_path / "a", config_time=1e9)
    make_run(tmp_path / "b", config_time=2e9)
    assert newest_run(tmp_path, trained=True) is None
    (tmp_path / "a" / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "a" / "checkpoints" / "model_best.pth").touch()
    assert newest_run(tmp_path, trained=True).run_id == "a"
    assert newest_run(tmp_path).run_id == "b"


def test_there_may_be_no_newest_run(tmp_path):
    assert newest_run(tmp_path) is None
    assert newest_run(tmp_path / "nowhere") is None
