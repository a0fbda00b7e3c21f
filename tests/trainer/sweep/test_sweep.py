"""Sweeps: what is tried, what each trial comes to, and that none is lost or run twice.

Most run a stand-in for train.py that writes metrics.csv at once, without importing torch.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import train
from base.config.check import load_config
from trainer.sweep.job import environment
from trainer.sweep.results import short_names
from trainer.sweep.search import load_sweep
from trainer.sweep.study import open_study

STAND_IN = """
import fcntl, os, signal, sys, time, yaml
from pathlib import Path
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config = yaml.safe_load(open(args["-c"]))
run = Path(config["trainer"]["save_dir"], config["name"], args["--run-id"])
run.mkdir(parents=True, exist_ok=True)
lock = open(run / ".lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
seed, lr = config["seed"], config["optimizer"]["args"]["lr"]
def end(code, words):
    print(words, file=sys.stderr)
    sys.exit(code)
if seed == 13: end(5, "epoch 1: the loss is nan")
if seed == 14: end(2, "seed: 14 is unlucky")
if seed == 15: end(4, "no space left")
signal.signal(signal.SIGTERM, lambda *_: end(143, "stopped"))
table = run / "metrics.csv"
with open(run / "starts", "a") as file: print(time.time(), file=file)
done = len(table.read_text().splitlines()) - 1 if table.exists() else 0
if not done: table.write_text("epoch,val_loss\\n")
for epoch in range(done + 1, config["trainer"]["epochs"] + 1):
    time.sleep(float(os.environ.get("STAND_IN_SECONDS", 0)))
    with open(table, "a") as file: print(epoch, lr + abs(epoch - 3), sep=",", file=file)
with open(run / "ends", "a") as file: print(time.time(), os.environ["OMP_NUM_THREADS"], file=file)
"""
CONFIG = """
name: blobs
dataset: Digits
data_loader: {args: {batch_size: 64, validation_split: 64}}
model: ConvNet
loss: cross_entropy
metrics: [accuracy]
optimizer: {type: Adam, args: {lr: 0.001}}
trainer: {epochs: 5, monitor: min val_loss, save_dir: saved, limit_batches: 2}
logger: {tensorboard: false}
"""
LR = {"low": 1e-4, "high": 1e-1, "log": True}
SEEDS = {"values": [2, 3, 4]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a stand-in for train.py; `saved/blobs/` is where runs go."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr("trainer.sweep.job.TRAIN", tmp_path / "stand_in.py")
    monkeypatch.setattr("trainer.sweep.sweep.SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr("trainer.sweep.plot.plot_sweep", lambda *args, **kwargs: None)
    return tmp_path / "saved" / "blobs"


@pytest.fixture
def files(tmp_path):
    """A function that writes a config and a sweep file and returns the arguments naming them."""

    def write(parameters, **keys):
        (tmp_path / "blobs.yaml").write_text(CONFIG)
        text = json.dumps({**keys, "parameters": parameters}, indent=1)
        (tmp_path / "sweep.yaml").write_text(text)
        return ["-c", "blobs.yaml", "--sweep", "sweep.yaml"]

    return write


@pytest.fixture
def search(folder, files):
    """A function that runs a sweep with these parameters and keys, and returns the result."""

    def run(parameters, *arguments, run_id="s", **keys):
        arguments = [*files(parameters, **keys), "--run-id", run_id, *arguments]
        return CliRunner().invoke(train.app, arguments)

    return run


def leaderboard(folder: Path, name: str = "s") -> list[dict[str, str]]:
    with (folder / f"{name}-sweep" / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def tried(folder: Path, name: str = "s") -> list[tuple]:
    """Return what distinguishes the trials, in their order."""
    rows = sorted(leaderboard(folder, name), key=lambda row: int(row["trial"]))
    told = {"rank", "trial", "value", "epoch", "seconds", "run", "error"}
    return [tuple(value for key, value in row.items() if key not in told) for row in rows]


# --- what is tried --------------------------------------------------------------------------------


def test_a_grid_tries_every_combination_once_and_in_order(search, folder):
    parameters = {
        "seed": SEEDS,
        "optimizer.args.lr": {"low": 0.1, "high": 0.35, "step": 0.1},
    }
    result = search(parameters, search="grid", parallel=4)
    assert result.exit_code == 0, result.output
    expected = [("done", str(w), lr) for w in (2, 3, 4) for lr in ("0.1", "0.2", "0.3")]
    assert tried(folder) == expected
    best = leaderboard(folder)[0]
    assert (best["rank"], best["value"], best["epoch"]) == ("1", "0.1", "3")
    assert best["run"] in (f"saved/blobs/s-{n:03d}" for n in (0, 3, 6))
    assert f"next: python test.py -r {best['run']}" in result.output


@pytest.mark.parametrize(("kind", "total"), [("random", 4), ("tpe", 12)])  # TPE draws 10 at random
def test_a_seed_fixes_what_is_tried_and_a_resumed_sweep_tries_the_same(search, folder, kind, total):
    parameters = {"seed": SEEDS, "optimizer.args.lr": LR}
    for name, num_trials, seed in (("whole", total, 1), ("part", total - 1, 1), ("other", 1, 2)):
        result = search(parameters, run_id=name, search=kind, num_trials=num_trials, seed=seed)
        assert result.exit_code == 0, result.output
    search(parameters, run_id="part", search=kind, num_trials=total, seed=1)
    assert tried(folder, "part") == tried(folder, "whole")
    assert tried(folder, "other") != tried(folder, "whole")[:1]
    assert len(set(tried(folder, "whole"))) == total


def test_values_may_be_lists_nodes_and_nothing(search, folder):
    optimizers = {"values": [{"type": "Adam", "args": {"lr": 0.5}}, "SGD"]}
    groups = {"values": [None, [{"params": "head.*", "lr": 0.01}]]}
    parameters = {"optimizer": optimizers, "optimizer.param_groups": groups}
    result = search(parameters, "optimizer.args.lr=0.1", search="grid")
    assert result.exit_code == 0, result.output
    config = load_config(folder / "s-sweep" / "trials" / "s-001.yaml")
    assert config.optimizer.type == "Adam"
    assert config.optimizer.param_groups[0].params == ["head.*"]


# --- how trials end -------------------------------------------------------------------------------


def test_a_trial_that_fails_is_recorded_and_the_sweep_goes_on(search, folder):
    result = search({"seed": {"values": [13, 3, 14]}}, search="grid")
    assert result.exit_code == 0, result.output
    assert [row["error"] for row in leaderboard(folder)] == [
        "",
        "exit 5: epoch 1: the loss is nan",
        "exit 2: seed: 14 is unlucky",
    ]
    assert [state for state, _ in tried(folder)] == ["failed", "done", "failed"]
    assert "s-000 failed  exit 5: epoch 1: the loss is nan  seed 13" in result.output


def test_a_mistake_that_the_first_trial_finds_stops_the_sweep(search, folder):
    result = search({"seed": {"values": [14, 3]}}, search="grid")
    assert (result.exit_code, "seed: 14 is unlucky" in result.output) == (2, True)
    assert not (folder / "s-001").exists()


def test_a_full_disk_stops_the_sweep_and_the_trial_is_continued(search, folder):
    result = search({"seed": {"values": [15, 3]}}, search="grid")
    assert (result.exit_code, "no space left" in result.output) == (4, True)
    stand_in = folder.parent.parent / "stand_in.py"
    stand_in.write_text(STAND_IN.replace("seed == 15", "False"))
    assert search({"seed": {"values": [15, 3]}}, search="grid").exit_code == 0
    assert tried(folder) == [("done", "15"), ("done", "3")]


def test_a_trial_that_does_worse_is_stopped_early(search, folder, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "0.3")
    lrs = {"values": [1, 2, 3, 4, 5, 9]}
    result = search({"optimizer.args.lr": lrs}, search="grid", pruning="median", parallel=5)
    assert result.exit_code == 0, result.output
    assert [state for state, _ in tried(folder)] == ["done"] * 5 + ["pruned"]
    assert leaderboard(folder)[-1]["value"] == "10.0"
    assert len((folder / "s-005" / "metrics.csv").read_text().splitlines()) < 6
    assert not (folder / "s-005" / "ends").exists()


def test_trials_run_at_once_and_share_the_cores(search, folder, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "0.2")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert search({"seed": {"values": [2, 3]}}, search="grid", parallel=2).exit_code == 0
    starts = [float((folder / f"s-00{n}" / "starts").read_text()) for n in (0, 1)]
    ends = [(folder / f"s-00{n}" / "ends").read_text().split() for n in (0, 1)]
    assert max(starts) < min(float(end) for end, _ in ends)
    assert [threads for _, threads in ends] == ["3", "3"]


def test_of_several_gpus_each_process_gets_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [environment(n, 3, "auto")["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["4", "6", "4"]
    assert environment(1, 3, "cpu")["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert environment(0, 1, "auto")["CUDA_VISIBLE_DEVICES"] == "4,6"


# --- resuming and joining -------------------------------------------------------------------------

COMMAND = "import sys, trainer.sweep.job as job, train; job.TRAIN = 'stand_in.py'; train.app()"


@pytest.fixture
def start(folder, project_root, monkeypatch):
    """A function that starts the command as a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(project_root))
    monkeypatch.setenv("STAND_IN_SECONDS", "0.4")
    processes = []

    def start(arguments, *, wait_for):
        command = [sys.executable, "-c", COMMAND, *arguments, "--run-id", "s"]
        processes.append(subprocess.Popen(command, start_new_session=True))
        deadline = time.monotonic() + 60
        while not list(folder.glob(wait_for)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_stopped_goes_on_where_it_was(files, search, start, folder, number):
    lrs = {"optimizer.args.lr": {"values": [1, 2, 3, 4]}}
    arguments = files(lrs, search="grid", parallel=2)
    sweep = start(arguments, wait_for="s-003/metrics.csv")
    os.killpg(sweep.pid, number)
    assert sweep.wait(20) == (130 if number == signal.SIGINT else -number)
    result = search(lrs, search="grid", parallel=2)
    assert result.exit_code == 0, result.output
    assert tried(folder) == [("done", str(lr)) for lr in (1, 2, 3, 4)]
    starts = [len((folder / f"s-00{n}" / "starts").read_text().split()) for n in range(4)]
    assert starts[:2] == [1, 1]
    assert max(starts) == 2
    for number in range(4):
        rows = (folder / f"s-00{number}" / "metrics.csv").read_text().splitlines()
        assert [row.partition(",")[0] for row in rows[1:]] == list("12345")
    assert not list((folder / "s-sweep" / "workers").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("storage", [None, "sqlite:///study.db"])
def test_two_commands_share_the_trials_of_a_sweep(files, search, start, folder, storage):
    lrs = {"optimizer.args.lr": {"values": [1, 2, 3, 4, 5, 6]}}
    other = start(files(lrs, search="grid", storage=storage), wait_for="s-000")
    assert search(lrs, search="grid", storage=storage).exit_code == 0
    assert other.wait(20) == 0
    assert search(lrs, search="grid", storage=storage).exit_code == 0
    assert tried(folder) == [("done", str(lr)) for lr in range(1, 7)]
    assert {(folder / f"s-00{n}" / "starts").read_text().count("\n") for n in range(6)} == {1}


def test_a_sweep_killed_before_its_first_trial_began_is_told_of_without_one(search, files, folder):
    files({"seed": {"values": [2]}}, search="grid")
    plan = load_sweep(Path("sweep.yaml"), Path("blobs.yaml"), [])
    open_study(plan, "blobs/s", folder / "s-sweep", plan.trial_config({})).ask()
    result = search({"seed": {"values": [2]}}, search="grid")
    assert result.exit_code == 0, result.output
    assert leaderboard(folder) == []


def test_a_sweep_of_another_search_is_not_continued(search, folder):
    assert search({"seed": {"values": [2]}}, search="grid").exit_code == 0
    result = search({"seed": {"values": [3]}}, search="grid")
    assert result.exit_code == 2
    assert "blobs/s was begun with another sweep.parameters.seed.values" in result.output
    assert search({"seed": {"values": [2]}}, "trainer.epochs=4", search="grid").exit_code == 2


# --- real runs ------------------------------------------------------------------------------------


def test_the_best_config_runs_and_reaches_the_same(tmp_path, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lrs = {"optimizer.args.lr": {"values": [0.01, 0.0001]}}
    arguments = files(lrs, search="grid", parallel=2)
    result = CliRunner().invoke(train.app, [*arguments, "--run-id", "s"])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "saved" / "blobs"
    best = leaderboard(folder)[0]
    assert (folder / "s-sweep" / "leaderboard.png").stat().st_size > 1000
    text = (folder / "s-sweep" / "best.yaml").read_text()
    assert text.startswith("# python train.py -c saved/blobs/s-sweep/best.yaml\n# min val_loss: ")
    assert load_config(folder / "s-sweep" / "best.yaml").optimizer.args == {"lr": 0.01}
    again = CliRunner().invoke(
        train.app, ["-c", "saved/blobs/s-sweep/best.yaml", "--run-id", "again"]
    )
    assert again.exit_code == 0, again.output
    summary = json.loads((folder / "again" / "summary.json").read_text())
    assert summary["best"]["val_loss"] == float(best["value"])


# --- mistakes -------------------------------------------------------------------------------------


def test_names_are_as_short_as_they_can_be_told_apart():
    keys = ["optimizer.args.lr", "model.args.2.args.1", "model.args.4.args.1", "a.0.lr", "bs"]
    assert list(short_names(keys).values()) == [
        "args.lr", "args.2.args.1", "args.4.args.1", "a.0.lr", "bs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: tpee", "1:1: search: expected 'grid', 'random' or 'tpe', found 'tpee'"),
        ("num_trial: 3", "1:1: num_trial: unknown key (did you mean 'num_trials'?)"),
        ("parallel: 0", "1:1: parallel: expected at least 1, found 0"),
        ("search: tpe", "num_trials: missing, search: tpe needs it"),
        ("metric: min val_los", "1:1: metric: nothing logs a column 'val_los' (did you"),
        ("metric: val_loss", "1:1: metric: expected 'min COLUMN' or 'max COLUMN', found 'val_loss"),
        ("num_trials: 3", "1:1: num_trials: a grid tries every combination once; remove it"),
        ("parameters: 3", "1:1: parameters: expected a mapping, found 3"),
        ("  seed: 3", "2:3: parameters.seed: expected a mapping, found 3"),
        ("  seed: {low: 1}", "2:3: parameters.seed: expected low and high, or values: [...]"),
        (
            "  seed: {low: 2, high: 1}",
            "2:3: parameters.seed: expected low below high, found 2 and 1",
        ),
        ("  seed: {low: 0, high: 1, log: true}", "seed: log needs a low above 0, and no step"),
        ("  seed: {values: [1, 1]}", "parameters.seed: expected values that differ, found one twi"),
        ("  seed: {values: [1], log: true}", "expected either low and high or values, found both"),
        ("  seed: {lo: 1, high: 2}", "2:10: parameters.seed.lo: unknown key (did you mean 'low'?)"),
        ("  seed: {values: [1, -1]}", "2:3: seed: expected at least 0, found -1"),
        ("  name: {values: [a]}", "2:3: parameters.name: the same for all trials; remove it"),
        (
            "  optimizer.args.lr: {low: 0, high: 1.5}",
            "2:3: parameters.optimizer.args.lr: a grid nee",
        ),
        ("  optimizer.args.rl: {values: [1]}", "2:3: optimizer.args.rl: Adam takes no 'rl'"),
        ("  metrics.4.name: {values: [a]}", "2:3: metrics.4: no item 4 in a list of 1, counted"),
    ],
)
def test_a_mistake_has_its_place_and_nothing_is_created(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blobs.yaml").write_text(CONFIG)
    if text.startswith(" "):
        text = f"parameters:\n{text}\nsearch: grid"
    elif text == "parameters: 3":
        text += "\nsearch: grid"
    elif text == "search: tpe":
        text += "\nparameters: {seed: {values: [1]}}"
    else:
        text += "\nparameters: {seed: {values: [1]}}" + "\nsearch: grid" * ("search" not in text)
    (tmp_path / "sweep.yaml").write_text(text)
    result = CliRunner().invoke(train.app, ["-c", "blobs.yaml", "--sweep", "sweep.yaml"])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "sweep.yaml:" in result.output
    assert not (tmp_path / "saved").exists()


def test_a_storage_that_cannot_be_opened_is_a_mistake(search, folder):
    storage = "sqlite:////no/such/folder/study.db"
    result = search({"seed": {"values": [2]}}, search="grid", storage=storage)
    assert result.exit_code == 2, result.output
    assert "storage: " in result.output
    assert "unable to open database file" in result.output


def test_without_optuna_it_says_what_to_install(search, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = search({"seed": {"values": [2]}}, search="grid")
    assert (result.exit_code, result.output) == (2, "--sweep needs Optuna: pip install optuna\n")


def test_the_shipped_sweep_fits_its_config(project_root):
    configs = project_root / "configs"
    sweep = load_sweep(configs / "sweeps" / "digits.yaml", configs / "digits.yaml", [])
    assert sweep.total == 12
