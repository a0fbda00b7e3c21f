"""Processes that can be killed, started without importing everything anew."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm


def fork(work: Callable[[], Any], output: Path | None = None) -> int:
    """Do work in a forked process and return its number; its exit code is that of the work."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    # tqdm's own lock is shared by forked processes: one killed while drawing would keep it
    tqdm.set_lock(threading.RLock())
    multiprocessing.process._children.clear()  # the parent's workers are not this process's
    code = 1
    try:
        if output is not None:
            descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        work()
        code = 0
    except SystemExit as exit_:
        code = exit_.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for worker in multiprocessing.active_children():  # os._exit would leave them behind
            worker.kill()
        os._exit(code)


@pytest.fixture
def in_child() -> Callable[..., int]:
    """`fork`, as a fixture."""
    return fork


@pytest.fixture
def wait() -> Callable[[int], int]:
    """A function that waits for a process and returns its exit code, negative for a signal."""

    def wait_at_most(pid: int, seconds: float = 60) -> int:
        deadline = time.monotonic() + seconds
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                pytest.fail(f"the process did not end within {seconds} s")
            time.sleep(0.005)

    return wait_at_most
