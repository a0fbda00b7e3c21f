"""The commands as a user types them: killed and continued, a mistake told, two processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import train
from base.checkpoint.checkpoints import read_checkpoint

ROOT = Path(train.__file__).resolve().parent
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.*") if path.is_file())
# One that is quick to train, and needs no data that is not here.
CONFIG = "digits.yaml" if "digits.yaml" in CONFIGS else CONFIGS[0]
SHORT = ("trainer.limit_batches=8", "trainer.epochs=2", "logger.tensorboard=false", "device=cpu")

pytestmark = pytest.mark.skipif(not CONFIGS, reason="there is no config yet")


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, script, *map(str, arguments)]


def run(parts: list[str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(parts, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def save_dir(tmp_path):
    return f"trainer.save_dir={tmp_path}"


def checkpoints(folder: Path, run_id: str) -> list[Path]:
    return sorted(folder.glob(f"*/{run_id}/checkpoints/checkpoint-*.pth"))


@pytest.mark.slow
def test_a_run_that_is_terminated_continues_with_the_same_command(work_folder, tmp_path, save_dir):
    start = command("train.py", "-c", CONFIG, *SHORT, save_dir, "--run-id")
    whole = run([*start, "whole"], work_folder)
    assert whole.returncode == 0, whole.stderr
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([*start, "parts"], cwd=work_folder, env=environment)
    deadline = time.monotonic() + 120
    while process.poll() is None and not checkpoints(tmp_path, "parts"):
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) in (0, 143)  # 0: it was faster
    again = run([*start, "parts"], work_folder)
    assert again.returncode == 0, again.stderr
    expected, found = (read_checkpoint(checkpoints(tmp_path, r)[-1]) for r in ("whole", "parts"))
    assert expected["step"] == found["step"]
    assert all(torch.equal(expected["model"][k], found["model"][k]) for k in expected["model"])
    tested = run(command("test.py", "-r", next(tmp_path.glob("*/parts"))), work_folder)
    assert tested.returncode == 0 or "test_dataset: missing" in tested.stderr, tested.stderr


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("trainer.epochz=2", r"trainer\.epochz: unknown key \(did you mean 'epochs'\?\)"),
        ("trainer.epochs=two", r"trainer\.epochs: .*'two'"),
        ("model.type=NoSuchModel", r"model\.type: unknown name 'NoSuchModel'"),
        ("optimizer.args.lrr=1", r"optimizer\.args\.lrr: .*(did you mean 'lr'\?|takes no 'lrr')"),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_nothing_is_written(
    work_folder, tmp_path, save_dir, monkeypatch, mistake, words
):
    monkeypatch.chdir(work_folder)
    result = CliRunner().invoke(train.app, ["-c", CONFIG, save_dir, mistake])
    assert result.exit_code == 2
    line = result.output.removesuffix("\n")
    assert re.search(words, line), line
    assert "\n" not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_train_together(work_folder, tmp_path, save_dir):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    start = command(torchrun[0], *torchrun[1:], "train.py", "-c", CONFIG, *SHORT, save_dir)
    result = run([*start, "--run-id", "two"], work_folder)
    assert result.returncode == 0, result.stderr
    state = read_checkpoint(checkpoints(tmp_path, "two")[-1])
    assert state["epoch"] == 2
    assert state["step"] > 0
    assert all(torch.isfinite(value).all() for value in state["model"].values())
