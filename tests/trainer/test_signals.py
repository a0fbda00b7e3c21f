"""Real signals to real processes: the run is saved, and the printed command continues it."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from base.config.check import load_config
from base.runtime.stop_signal import StopSignal

SETTINGS = [
    "model.args.channels=[4, 0, 8]", "model.args.dropout=0.2", "data_loader.args.batch_size=64",
    "trainer.epochs=30", "trainer.accumulate=2", "trainer.ema_decay=0.9", "trainer.log_interval=1",
]  # fmt: skip
RANKS = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--signals-to-handle",
         "SIGTERM,SIGINT,SIGUSR1"]  # fmt: skip


@pytest.fixture
def launch(tmp_path, project_root):
    """Return a function that starts `python ARGUMENTS` where saved/ is, and waits for nothing."""
    processes = []

    def start(*arguments: str) -> subprocess.Popen:
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(project_root)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def arguments(project_root) -> list[str]:
    """What trains the digits under the id `run`."""
    train_py, config = project_root / "train.py", project_root / "configs" / "digits.yaml"
    return [str(train_py), "-c", str(config), "--run-id", "run", *SETTINGS]


def wait_for_epochs(run: Path, count: int, process: subprocess.Popen) -> None:
    file = run / "metrics.csv"
    while not file.exists() or len(file.read_text().splitlines()) <= count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def continuing_command(stderr: str, project_root: Path) -> list[str]:
    (line,) = (line for line in stderr.splitlines() if line.startswith("continue with: "))
    words = shlex.split(line.removeprefix("continue with: "))
    words[words.index("train.py")] = str(project_root / "train.py")
    return words[1:]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / "checkpoint-epoch30.pth", weights_only=True)
    return state["model"] | {f"ema.{name}": tensor for name, tensor in state["ema"].items()}


def assert_same_weights(run: Path, whole: Path) -> None:
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(run)[name], tensor), name


def train_whole(tmp_path: Path, project_root: Path) -> None:
    path = project_root / "configs" / "digits.yaml"
    train.main(load_config(path, [*SETTINGS, f"trainer.save_dir={tmp_path / 'whole'}"]))


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_run_and_the_printed_command_ends_it_as_if_it_had_not_come(
    launch, arguments, tmp_path, project_root, signum, code
):
    run = tmp_path / "saved" / "digits" / "run"
    process = launch(*arguments)
    wait_for_epochs(run, 2, process)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stderr.startswith(f"stopped by {signum.name} ")

    process = launch(*continuing_command(stderr, project_root))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    train_whole(tmp_path, project_root)
    assert_same_weights(run, next((tmp_path / "whole" / "digits").iterdir()))


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_by_the_same_command_as_if_it_had_not_been(
    launch, arguments, tmp_path, project_root
):
    run = tmp_path / "saved" / "digits" / "run"
    for count in (3, 11, 20):
        process = launch(*arguments, "trainer.save_steps=4")
        wait_for_epochs(run, count, process)
        process.kill()
        process.wait()
    process = launch(*arguments, "trainer.save_steps=4")
    assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 0
    assert len((run / "metrics.csv").read_text().splitlines()) == 31
    train_whole(tmp_path, project_root)
    assert_same_weights(run, next((tmp_path / "whole" / "digits").iterdir()))


@pytest.mark.slow
def test_torchrun_passes_a_signal_on_and_all_processes_stop_at_one_step(
    launch, arguments, two_processes, tmp_path, project_root
):
    run = tmp_path / "saved" / "digits" / "run"
    process = launch(*RANKS, *arguments)
    wait_for_epochs(run, 2, process)
    process.send_signal(signal.SIGUSR1)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert stderr.count("stopped by ") == 1

    command = continuing_command(stderr, project_root)  # without "torchrun", which may not be there
    process = launch("-m", "torch.distributed.run", *command)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    two_processes(lambda rank: train_whole(tmp_path, project_root))
    assert_same_weights(run, next((tmp_path / "whole" / "digits").iterdir()))


def test_a_second_interrupt_leaves_at_once():
    child = os.fork()
    if child == 0:
        with StopSignal():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_a_first_interrupt_is_remembered_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
