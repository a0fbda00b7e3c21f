"""A signal becomes a flag; a second SIGINT leaves at once; workers outlive what stops a run."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from base.runtime.stop_signal import EXIT_CODES, StopSignal


@pytest.mark.parametrize(
    ("signum", "exit_code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)],
)
def test_a_signal_is_remembered_and_the_handlers_are_given_back(signum, exit_code):
    before = signal.getsignal(signum)
    with StopSignal() as stop:
        assert stop.number == 0
        os.kill(os.getpid(), signum)
        assert stop.number == signum
    assert signal.getsignal(signum) == before
    assert EXIT_CODES[signum] == exit_code


def test_the_last_signal_counts_and_one_sigint_after_others_does_not_leave():
    with StopSignal() as stop:
        for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(os.getpid(), signum)
            assert stop.number == signum


def test_off_the_main_thread_nothing_is_changed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with StopSignal():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def run(script: str, project_root) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=project_root,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )


def test_a_second_sigint_leaves_at_once_whatever_came_between(project_root):
    script = (
        "import os, signal\n"
        "from base.runtime.stop_signal import StopSignal\n"
        "with StopSignal():\n"
        "    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):\n"
        "        print(signum.name, flush=True)\n"
        "        os.kill(os.getpid(), signum)\n"
        "    print('still here')\n"
    )
    done = run(script, project_root)
    assert (done.returncode, done.stdout) == (130, "SIGINT\nSIGTERM\nSIGINT\n")


def test_workers_go_on_after_a_signal_to_all_processes(project_root):
    script = (
        "import os, signal, time\n"
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "from base import BaseDataLoader\n"
        "from base.runtime.stop_signal import StopSignal\n"
        "loader = BaseDataLoader(TensorDataset(torch.arange(99)), num_workers=2)\n"
        "with StopSignal() as stop:\n"
        "    for number, _ in enumerate(loader.batches(0, 99), start=1):\n"
        "        if number == 3:\n"
        "            for signum in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):\n"
        "                os.killpg(os.getpgid(0), signum)\n"
        "                for worker in loader._iterator._workers:\n"
        "                    if signum != signal.SIGTERM:\n"
        "                        os.kill(worker.pid, signum)\n"
        "            time.sleep(0.2)\n"
        "    print(number, stop.number == signal.SIGTERM)\n"
    )
    done = run(script, project_root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "99 True\n", "")
