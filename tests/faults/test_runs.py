"""A run is never lost: killed, stopped, starved of workers, started twice, given bad data."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import train as train_command
from base.checkpoint.checkpoints import Checkpoints, read_checkpoint
from base.registry import DATASETS
from data_loader.datasets import Digits

pytestmark = pytest.mark.faults

NUM_KILLS, NUM_REAL_KILLS = 25, 5
CONFIG = {
    "name": "hard",
    "dataset": {
        "type": "Digits",
        "transform": [
            {"type": "RandomAffine", "args": {"degrees": 10, "translate": [0.1, 0.1]}},
            {"type": "RandomShift", "args": {"pixels": 1}},
        ],
        "valid_transform": [],
    },
    "data_loader": {
        "args": {"batch_size": 32, "validation_split": 0.2, "num_workers": 2},
        "in_memory": False,
    },
    "model": {"type": "ConvNet", "args": {"channels": [8, 0, 16], "dropout": 0.3}},
    "loss": "cross_entropy",
    "metrics": ["accuracy", {"type": "MulticlassF1Score", "args": {"num_classes": 10}}],
    "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
    "lr_scheduler": {"type": "OneCycleLR", "interval": "step"},
    "trainer": {
        "epochs": 3, "monitor": "max val_accuracy", "accumulate": 2, "ema_decay": 0.9,
        "save_steps": 2, "log_interval": 3, "clip_grad_norm": 1.0,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_project(project_root, monkeypatch):
    monkeypatch.chdir(project_root)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "hard.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def arguments(config_file: Path, saved: Path, run_id: str, *changes: str) -> list[str]:
    return ["-c", str(config_file), "--run-id", run_id, f"trainer.save_dir={saved}", *changes]


@pytest.fixture
def start(in_child, tmp_path):
    """A function that starts `train.py` in a child, its output in tmp_path/output."""

    def start_train(*command: str) -> int:
        torch.set_num_threads(1)
        work = partial(train_command.app, list(command), standalone_mode=True)
        return in_child(work, tmp_path / "output")

    return start_train


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def result_of(run: Path) -> tuple:
    """Return what must be equal: the states' tensors and numbers, metrics.csv without timing."""
    state = Checkpoints(run / "checkpoints").load_newest()[1]
    state.pop("seconds")
    state.pop("config")
    for timing in ("seconds", "samples_per_second"):
        state["row"].pop(timing)
        state["monitor"]["best_row"].pop(timing, None)
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return flat(state), [row[:2] + row[4:] for row in rows], scalars(run)


def flat(value, path: str = "") -> dict[str, str]:
    if isinstance(value, torch.Tensor):
        return {path: f"{value.dtype}{tuple(value.shape)}{value.flatten().tolist()}"}
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, sub in items for k, v in flat(sub, f"{path}.{key}").items()}
    return {path: repr(value)}


def scalars(run: Path) -> dict[str, list]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for part in ("train", "valid"):
        events = EventAccumulator(str(run / "tensorboard" / part))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            if tag not in ("samples_per_second", "seconds"):
                found[f"{part}/{tag}"] = [
                    (event.step, event.value) for event in events.Scalars(tag)
                ]
    return found


@pytest.fixture(scope="module")
def uninterrupted(config_file, tmp_path_factory):
    """The result of the run when nothing happens, and the seconds it took."""
    saved = tmp_path_factory.mktemp("saved")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(train_command.__file__).parent)
        train_command.app(arguments(config_file, saved, "full"), standalone_mode=False)
    torch.set_num_threads(threads)
    return result_of(saved / "hard" / "full"), time.monotonic() - started


def test_a_run_killed_again_and_again_ends_like_one_that_never_was(
    uninterrupted, config_file, tmp_path, start, wait, capsys
):
    """SIGKILL at random moments, each followed by the same command, with augmentation, workers,
    dropout, batch norm, a schedule per step, accumulation, EMA and torchmetrics: the final state,
    metrics.csv and TensorBoard's scalars equal those of the uninterrupted run."""
    expected, seconds = uninterrupted
    draws = random.Random(1)
    num_kills = num_runs = 0
    while num_kills < NUM_KILLS:
        num_runs += 1
        command = arguments(config_file, tmp_path, f"run{num_runs}")
        for _ in range(4):
            pid = start(*command)
            time.sleep(draws.uniform(0.1, seconds * 0.7))
            os.kill(pid, signal.SIGKILL)
            num_kills += wait(pid) == -signal.SIGKILL
        assert wait(start(*command)) == 0, (tmp_path / "output").read_text()[-3000:]
        assert result_of(tmp_path / "hard" / f"run{num_runs}") == expected
    with capsys.disabled():
        print(f"\n{num_kills} kills in {num_runs} runs, all equal")


def test_a_process_of_its_own_killed_again_and_again_ends_the_same(
    uninterrupted, config_file, tmp_path
):
    """As above, `python train.py` started anew each time."""
    expected, seconds = uninterrupted
    draws = random.Random(2)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py", *arguments(config_file, tmp_path, "one")]
    for _ in range(NUM_REAL_KILLS):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        lock = tmp_path / "hard" / "one" / ".lock"
        wait_for(lambda: lock.exists() or process.poll() is not None, 60)  # noqa: B023
        time.sleep(draws.uniform(0, seconds * 0.3))
        process.kill()
        process.wait()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert result_of(tmp_path / "hard" / "one") == expected


def test_the_number_of_workers_may_change_between_interruptions(
    uninterrupted, config_file, tmp_path, start, wait
):
    """Stopped by SIGTERM and continued with 0, 1 and 2 workers: the same result."""
    expected, _ = uninterrupted
    for workers in (1, 0, 2):
        change = f"data_loader.args.num_workers={workers}"
        pid = start(*arguments(config_file, tmp_path, "one", change))
        steps = tmp_path / "hard" / "one" / "checkpoints"
        before = newest_place(steps)
        wait_for(lambda: newest_place(steps) > before)  # noqa: B023
        os.kill(pid, signal.SIGTERM)
        assert wait(pid) in (143, 0)
    assert wait(start(*arguments(config_file, tmp_path, "one"))) == 0
    assert result_of(tmp_path / "hard" / "one") == expected


def newest_place(folder: Path) -> tuple:
    from base.checkpoint.checkpoints import checkpoint_key

    newest = Checkpoints(folder).newest_first()
    return checkpoint_key(newest[0].name) if newest else (0, 0)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143)] * 5 + [(signal.SIGINT, 130), (signal.SIGUSR1, 143)],
)
def test_a_signal_in_mid_epoch_saves_the_very_step(
    config_file, tmp_path, start, wait, number, code
):
    """SIGTERM five times, SIGINT, SIGUSR1: exit 143 or 130 within 5 s, the newest checkpoint is of
    the step the message names, and the command that continues is printed."""
    pid = start(*arguments(config_file, tmp_path, "one"))
    output = tmp_path / "output"
    wait_for(lambda: newest_place(tmp_path / "hard" / "one" / "checkpoints") > (0, 0))
    time.sleep(random.random() * 0.4)
    os.kill(pid, number)
    started = time.monotonic()
    assert wait(pid) == code, output.read_text()
    assert time.monotonic() - started < 5
    state = Checkpoints(tmp_path / "hard" / "one" / "checkpoints").load_newest()[1]
    assert f"step {state['step']};" in output.read_text()
    assert f"continue with: python train.py -r {tmp_path}/hard/one" in output.read_text()


def test_a_second_sigint_leaves_at_once_without_damage(config_file, tmp_path, start, wait):
    """SIGINT twice: exit 130 within a second or the step's end, every checkpoint there loads."""
    pid = start(*arguments(config_file, tmp_path, "one"))
    wait_for(lambda: newest_place(tmp_path / "hard" / "one" / "checkpoints") > (0, 0))
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGINT)
    assert wait(pid) == 130
    for path in (tmp_path / "hard" / "one" / "checkpoints").glob("*.pth"):
        read_checkpoint(path)


def test_a_signal_while_saving_leaves_whole_files(config_file, tmp_path, start, wait):
    """SIGTERM while every step is saved: each file there loads, nothing half-written is left."""
    for attempt in range(3):
        pid = start(*arguments(config_file, tmp_path, f"r{attempt}", "trainer.save_steps=1"))
        folder = tmp_path / "hard" / f"r{attempt}" / "checkpoints"
        wait_for(lambda: newest_place(folder) > (0, 0))  # noqa: B023
        time.sleep(random.random() * 0.1)
        os.kill(pid, signal.SIGTERM)
        assert wait(pid) == 143
        assert not list(folder.glob(".*"))
        for path in folder.glob("*.pth"):
            read_checkpoint(path)


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def test_a_killed_worker_ends_the_run_with_its_cause(
    config_file, tmp_path, start, wait, project_root
):
    """A loader worker is killed: the run ends non-zero within 10 s, names the worker, and its
    checkpoints load."""
    pid = start(*arguments(config_file, tmp_path, "one"))
    wait_for(lambda: newest_place(tmp_path / "hard" / "one" / "checkpoints") > (0, 0))
    os.kill(children_of(pid)[0], signal.SIGKILL)
    started = time.monotonic()
    assert wait(pid) == 3, (tmp_path / "output").read_text()[-3000:]
    assert time.monotonic() - started < 10
    said = (tmp_path / "output").read_text()
    assert "worker" in said
    assert f'File "{project_root}/train.py"' not in said  # a dying worker may show its own
    Checkpoints(tmp_path / "hard" / "one" / "checkpoints").load_newest()


class HangingDigits(Digits):
    """Digits of which one, once training has begun, is never read."""

    def __getitem__(self, index: int):
        if index == 700 and torch.utils.data.get_worker_info() is not None:
            time.sleep(3600)
        return super().__getitem__(index)


def test_a_hanging_worker_ends_the_run_at_the_timeout(
    config_file, tmp_path, start, wait, monkeypatch
):
    """A loader worker hangs: the run ends at `data_loader.args.timeout`, names the cause, and its
    checkpoints load."""
    monkeypatch.setattr(DATASETS, "registered", {})
    DATASETS.register()(HangingDigits)
    changes = ("dataset.type=HangingDigits", "dataset.transform=[]", "data_loader.args.timeout=2")
    started = time.monotonic()
    assert wait(start(*arguments(config_file, tmp_path, "one", *changes))) == 3
    assert time.monotonic() - started < 10
    assert "timed out after 2" in (tmp_path / "output").read_text()
    Checkpoints(tmp_path / "hard" / "one" / "checkpoints").load_newest()


def test_of_two_processes_on_one_run_exactly_one_proceeds(config_file, tmp_path, start, wait):
    """Two processes start the same run at the same time, ten times: one ends with 0, the other
    with 2, naming the one that has it."""
    for attempt in range(10):
        command = arguments(config_file, tmp_path, f"r{attempt}", "trainer.epochs=1")
        pids = [start(*command), start(*command)]
        assert sorted(wait(pid) for pid in pids) == [0, 2]
    said = (tmp_path / "output").read_text()
    assert said.count("is in use by another process") + said.count("has just trained it") == 10


def test_a_lock_left_by_a_killed_process_does_not_block(config_file, tmp_path, start, wait):
    """SIGKILL leaves the lock file behind; the same command proceeds."""
    command = arguments(config_file, tmp_path, "one", "trainer.epochs=1")
    pid = start(*command)
    wait_for(lambda: (tmp_path / "hard" / "one" / ".lock").exists())
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    assert (tmp_path / "hard" / "one" / ".lock").exists()
    assert wait(start(*command)) == 0


def test_damaged_checkpoints_of_a_run_end_it_with_3_and_stay(config_file, tmp_path, start, wait):
    """Every checkpoint of a run is damaged: exit 3 and no file of the run changes."""
    command = arguments(config_file, tmp_path, "one", "trainer.epochs=1")
    assert wait(start(*command)) == 0
    run = tmp_path / "hard" / "one"
    for path in (run / "checkpoints").glob("*.pth"):
        path.write_bytes(path.read_bytes()[:-50])
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    assert wait(start(*command)) == 3
    assert {p: p.read_bytes() for p in before} == before
    assert "no valid checkpoint" in (tmp_path / "output").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model.args.channels=[8, 0, 8]"], "model.args.channels"),
        (["optimizer.type=SGD", "optimizer.args.lr=0.1"], "optimizer.type"),
    ],
)
def test_a_run_does_not_continue_with_another_model_or_optimizer(
    config_file, tmp_path, start, wait, changes, words
):
    """Another architecture or optimizer on an old run: exit 2, naming the keys that differ."""
    command = arguments(config_file, tmp_path, "one", "trainer.epochs=1")
    assert wait(start(*command)) == 0
    assert wait(start(*command, *changes)) == 2
    assert words in (tmp_path / "output").read_text()


def test_another_projects_checkpoint_is_refused_in_one_line(tmp_path, start, wait):
    """A checkpoint without our keys: exit 2 and one line that says what it can be used for."""
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "foreign.pth")
    assert wait(start("-r", str(tmp_path / "foreign.pth"))) == 2
    said = (tmp_path / "output").read_text().splitlines()
    assert len(said) == 1
    assert "holds weights only" in said[0]


def test_weights_of_another_model_are_refused_in_one_line(config_file, tmp_path, start, wait):
    """`model.weights` with no tensor that fits: exit 3 and one line."""
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "foreign.pth")
    changes = (f"model.weights={tmp_path}/foreign.pth",)
    assert wait(start(*arguments(config_file, tmp_path, "one", *changes))) == 3
    assert "no weight of it fits the model" in (tmp_path / "output").read_text()
    assert not (tmp_path / "hard").exists()


def test_truncated_data_ends_with_3_before_a_run_is_made(tmp_path, start, wait, write_small_mnist):
    """A truncated data file: exit 3, the data set named, no run directory."""
    write_small_mnist(tmp_path / "data")
    images = tmp_path / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1000])
    changes = (f"data_loader.args.data_dir={tmp_path}/data", f"trainer.save_dir={tmp_path}/saved")
    assert wait(start("-c", "config.json", *changes)) == 3
    assert "MnistDataLoader could not be fetched or read" in (tmp_path / "output").read_text()
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_one_bad_sample_is_named(tmp_path, start, wait, workers):
    """One unreadable image among many: exit 3, its index named, whether read by workers or not."""
    from PIL import Image

    for label in ("a", "b"):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(8):
            Image.new("L", (8, 8), number * 30).save(folder / f"{number}.png")
    (tmp_path / "images" / "b" / "3.png").write_bytes(b"no image")
    config = CONFIG | {
        "dataset": {
            "type": "ImageFolder",
            "args": {"root": str(tmp_path / "images")},
            "transform": [
                "ToImage", "Grayscale", {"type": "ToDtype", "args": {"dtype": "float32"}},
            ],
        },
        "metrics": [],
        "data_loader": {"args": {"batch_size": 4, "num_workers": workers}},
        "trainer": {"epochs": 1},
    }  # fmt: skip
    (tmp_path / "images.json").write_text(json.dumps(config))
    assert wait(start(*arguments(tmp_path / "images.json", tmp_path, "one"))) == 3
    assert "sample 11 of ImageFolder cannot be read" in (tmp_path / "output").read_text()
    assert "Traceback" not in (tmp_path / "output").read_text()


def test_a_clock_set_back_a_day_changes_nothing(
    uninterrupted, config_file, tmp_path, start, wait, monkeypatch
):
    """The clock is a day back when the run continues: the same result, no negative duration."""
    expected, _ = uninterrupted
    command = arguments(config_file, tmp_path, "one")
    pid = start(*command)
    wait_for(lambda: newest_place(tmp_path / "hard" / "one" / "checkpoints") > (0, 0))
    os.kill(pid, signal.SIGTERM)
    wait(pid)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    assert wait(start(*command)) == 0
    assert result_of(tmp_path / "hard" / "one") == expected
    rows = (tmp_path / "hard" / "one" / "metrics.csv").read_text().splitlines()[1:]
    assert all(float(row.split(",")[2]) > 0 for row in rows)
