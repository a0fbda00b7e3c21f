"""Sweeps: what is tried, what each trial comes to, and that none is lost or run twice.

Most train with a stand-in, whose `val_loss` is the learning rate and the distance from epoch 3.
"""

import csv
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from optuna import TrialPruned
from typer.testing import CliRunner

from base.config.check import load_config
from base.errors import DivergedError, StoppedError, UsageError, WriteError
from logger import RunDirectory
from trainer.sweep.__main__ import app
from trainer.sweep.search import load_sweep

LR = {"low": 1e-4, "high": 1e-1, "log": True}
SEEDS = {"values": [2, 3, 4]}
ERRORS = {
    13: DivergedError("epoch 1: the loss is nan"),
    14: UsageError("seed: 14 is unlucky"),
    15: WriteError("no space left"),
    16: StoppedError("stopped", exit_code=130),
}


def stand_in(config, run, trial):
    with (run.path / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    deadline = time.monotonic() + 20
    while not Path(os.environ.get("WAIT_FOR", ".")).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if config.seed in ERRORS:
        raise ERRORS[config.seed]
    for epoch in range(1, config.trainer.epochs + 1):
        trial.report(config.optimizer.args["lr"] + abs(epoch - 3), epoch)
        if trial.should_prune():
            raise TrialPruned
    return {"best": {"epoch": 3, "val_loss": config.optimizer.args["lr"]}}


@pytest.fixture
def tree(tree):
    """The config to search over: as small as it can be."""
    tree |= {"dataset": "Blobs", "metrics": ["accuracy"], "lr_scheduler": None}
    tree["trainer"] |= {"epochs": 5, "save_dir": "saved", "ema_decay": None}
    tree["logger"] = {"tensorboard": False}
    return tree


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory where no trial takes time; `saved/blobs/` is where runs go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trainer.sweep.sweep._train", stand_in)
    monkeypatch.setattr("trainer.sweep.sweep.plot_trials", lambda *args: None)
    monkeypatch.setattr("gc.collect", lambda: 0)  # after each trial; it takes 0.1 s
    return tmp_path / "saved" / "blobs"


@pytest.fixture
def search(tree, tmp_path):
    """A function that runs a sweep with these parameters and keys, and returns the result."""

    def run(parameters, *arguments, run_id="s", **keys):
        Path("blobs.yaml").write_text(yaml.safe_dump(tree))
        Path("sweep.yaml").write_text(json.dumps({**keys, "parameters": parameters}, indent=1))
        command = ["-c", "blobs.yaml", "sweep.yaml", "--run-id", run_id, *arguments]
        return CliRunner().invoke(app, command)

    return run


def leaderboard(folder: Path, name: str = "s") -> list[dict[str, str]]:
    with (folder / f"{name}-sweep" / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def tried(folder: Path, *columns: str, name: str = "s") -> list[tuple]:
    """Return the state and some columns of each trial, in their order."""
    rows = sorted(leaderboard(folder, name), key=lambda row: int(row["number"]))
    return [tuple(row[column] for column in ("state", *columns)) for row in rows]


# --- what is tried --------------------------------------------------------------------------------


def test_a_grid_tries_every_combination_once_and_in_order(search, folder):
    parameters = {
        "seed": SEEDS,
        "optimizer.args.lr": {"low": 0.1, "high": 0.35, "step": 0.1},
    }
    result = search(parameters, search="grid")
    assert result.exit_code == 0, result.output
    expected = [("COMPLETE", str(w), lr) for w in (2, 3, 4) for lr in ("0.1", "0.2", "0.3")]
    assert tried(folder, "seed", "optimizer.args.lr") == expected
    best = leaderboard(folder)[0]
    assert (best["value"], best["epoch"]) == ("0.1", "3")
    assert best["run"] in (f"saved/blobs/s-{n:03d}" for n in (0, 3, 6))
    assert f"next: python test.py -r {best['run']}" in result.output


@pytest.mark.parametrize(("kind", "total"), [("random", 4), ("tpe", 12)])  # TPE draws 10 at random
def test_a_seed_fixes_what_is_tried_and_a_resumed_sweep_tries_the_same(search, folder, kind, total):
    parameters = {"seed": SEEDS, "optimizer.args.lr": LR}
    for name, num_trials, seed in (("whole", total, 1), ("part", total - 1, 1), ("other", 1, 2)):
        result = search(parameters, run_id=name, search=kind, num_trials=num_trials, seed=seed)
        assert result.exit_code == 0, result.output
    search(parameters, run_id="part", search=kind, num_trials=total, seed=1)
    whole, part, other = (
        tried(folder, "seed", "optimizer.args.lr", name=name) for name in ("whole", "part", "other")
    )
    assert part == whole
    assert other != whole[:1]
    assert len(set(whole)) == total


def test_values_may_be_lists_nodes_and_nothing(search, folder, monkeypatch):
    configs = []
    monkeypatch.setattr(
        "trainer.sweep.sweep._train",
        lambda config, *args: configs.append(config) or {"best": {"epoch": 1, "val_loss": 1.0}},
    )
    optimizers = {"values": [{"type": "Adam", "args": {"lr": 0.5}}, "SGD"]}
    groups = {"values": [None, [{"params": "head.*", "lr": 0.01}]]}
    parameters = {"optimizer": optimizers, "optimizer.param_groups": groups}
    result = search(parameters, "optimizer.args.lr=0.1", search="grid")
    assert result.exit_code == 0, result.output
    assert [config.optimizer.type for config in configs] == ["Adam", "Adam", "SGD", "SGD"]
    assert configs[1].optimizer.param_groups[0].params == ["head.*"]


# --- how trials end -------------------------------------------------------------------------------


def test_a_trial_that_fails_is_recorded_and_the_sweep_goes_on(search, folder):
    result = search({"seed": {"values": [3, 13, 14]}}, search="grid")
    assert result.exit_code == 0, result.output
    assert tried(folder, "error") == [
        ("COMPLETE", ""),
        ("FAIL", "epoch 1: the loss is nan"),
        ("FAIL", "seed: 14 is unlucky"),
    ]


def test_a_mistake_that_the_first_trial_finds_stops_the_sweep(search, folder):
    result = search({"seed": {"values": [14, 3]}}, search="grid")
    assert (result.exit_code, "seed: 14 is unlucky" in result.output) == (2, True)
    assert not (folder / "s-001").exists()


@pytest.mark.parametrize(("seed", "code"), [(15, 4), (16, 130)])
def test_a_full_disk_or_a_signal_stops_the_sweep_and_the_trial_is_continued(
    search, folder, monkeypatch, seed, code
):
    result = search({"seed": {"values": [seed, 3]}}, search="grid")
    assert result.exit_code == code
    assert ("no space left" if code == 4 else "--run-id s") in result.output
    monkeypatch.delitem(ERRORS, seed)
    assert search({"seed": {"values": [seed, 3]}}, search="grid").exit_code == 0
    ends = tried(folder, "seed", "run")
    assert [end[0] for end in ends] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert ends[2][1:] == (str(seed), "saved/blobs/s-000")
    assert len((folder / "s-000" / "starts").read_text().split()) == 2


def test_a_trial_that_does_worse_is_stopped_early(search, folder):
    lrs = {"values": [1, 2, 3, 4, 5, 9]}
    result = search({"optimizer.args.lr": lrs}, search="grid", pruning="median")
    assert result.exit_code == 0, result.output
    assert [state for (state,) in tried(folder)] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert leaderboard(folder)[-1]["value"] == "10.0"


# --- resuming and joining -------------------------------------------------------------------------


@pytest.fixture
def fork_sweep(search, folder, monkeypatch):
    """A function that starts a sweep in a fork, whose trials last until a file is there.

    It returns the process once another file, below `folder`, is there.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("forks a process that uses torch, which only Linux bears")
    processes = []

    def fork(parameters, *, wait_for, hold_until, **keys):
        monkeypatch.setenv("WAIT_FOR", hold_until)
        context = multiprocessing.get_context("fork")
        processes.append(context.Process(target=search, args=(parameters,), kwargs=keys))
        processes[-1].start()
        deadline = time.monotonic() + 30
        while not (folder / wait_for).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        monkeypatch.delenv("WAIT_FOR")
        return processes[-1]

    yield fork
    for process in processes:
        process.kill()
        process.join()


def test_a_trial_of_a_killed_process_is_continued(search, fork_sweep, folder):
    lrs = {"optimizer.args.lr": {"values": [1, 2, 3]}}
    sweep = fork_sweep(lrs, search="grid", wait_for="s-000/starts", hold_until="never")
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.join()
    result = search(lrs, search="grid")
    assert result.exit_code == 0, result.output
    ends = tried(folder, "run")
    assert [end[0] for end in ends] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert ends[3] == ("COMPLETE", "saved/blobs/s-000")


@pytest.mark.parametrize("storage", [None, "sqlite:///study.db"])
def test_two_commands_share_the_trials_of_a_sweep(search, fork_sweep, folder, storage):
    lrs = {"optimizer.args.lr": {"values": [1, 2, 3, 4]}}
    ours = "saved/blobs/s-001/starts"
    keys = {"search": "grid", "storage": storage}
    other = fork_sweep(lrs, wait_for="s-000/starts", hold_until=ours, **keys)
    assert search(lrs, search="grid", storage=storage).exit_code == 0
    other.join(20)
    assert search(lrs, search="grid", storage=storage).exit_code == 0
    assert tried(folder, "optimizer.args.lr") == [("COMPLETE", str(lr)) for lr in (1, 2, 3, 4)]
    pids = [(folder / f"s-00{n}" / "starts").read_text().split() for n in range(4)]
    assert {len(each) for each in pids} == {1}
    assert len({each[0] for each in pids}) == 2


def test_a_sweep_of_another_search_is_not_continued(search, folder):
    assert search({"seed": {"values": [2]}}, search="grid").exit_code == 0
    result = search({"seed": {"values": [3]}}, search="grid")
    assert result.exit_code == 2
    assert "blobs/s was begun with another metric or other parameters" in result.output
    assert search({"seed": {"values": [2]}}, "-d", "auto", search="grid").exit_code == 0


# --- real runs ------------------------------------------------------------------------------------


def test_the_best_config_runs_and_reaches_the_same(search, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lrs = {"optimizer.args.lr": {"values": [0.01, 0.0001]}}
    result = search(lrs, "trainer.epochs=2", search="grid")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "saved" / "blobs"
    best = leaderboard(folder)[0]
    assert (folder / "s-sweep" / "leaderboard.png").stat().st_size > 1000
    file = folder / "s-sweep" / "best.yaml"
    text = file.read_text()
    assert text.startswith("# python train.py -c saved/blobs/s-sweep/best.yaml\n# min val_loss: ")
    config = load_config(file)
    assert config.optimizer.args == {"lr": 0.01}
    summary = json.loads((folder / "s-000" / "summary.json").read_text())
    assert summary["best"]["val_loss"] == float(best["value"])
    run = start(yaml.safe_load(text), run_id="again")
    states = [
        torch.load(path / "checkpoints/checkpoint-epoch2.pth", weights_only=True)["model"]
        for path in (run, folder / "s-000")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_that_was_stopped_is_continued(search, interrupt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trainer.sweep.sweep.plot_trials", lambda *args: None)
    interrupt["step", 3] = "SIGTERM"
    lrs = {"optimizer.args.lr": {"values": [0.01, 0.001]}}
    assert search(lrs, "trainer.epochs=2", search="grid").exit_code == 143
    result = search(lrs, "trainer.epochs=2", search="grid")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "saved" / "blobs"
    assert (
        "continuing in saved/blobs/s-000 after step 3" in (folder / "s-000/train.log").read_text()
    )
    assert tried(folder, "run")[1:] == [
        ("COMPLETE", "saved/blobs/s-001"),
        ("COMPLETE", "saved/blobs/s-000"),
    ]


def test_a_pruned_run_ends_at_its_epoch(search, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: True)
    result = search({"seed": {"values": [2]}}, "trainer.epochs=3", search="grid")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "saved" / "blobs"
    assert tried(folder) == [("PRUNED",)]
    rows = (folder / "s-000" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2  # the header, and one epoch
    assert "ends with an error" not in result.output + (folder / "s-000" / "train.log").read_text()
    assert float(leaderboard(folder)[0]["value"]) == float(rows[1].split(",")[-2])
    RunDirectory(folder / "s-000").acquire()  # free for others


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: tpee", "1:1: search: expected 'grid', 'random' or 'tpe', found 'tpee'"),
        ("num_trial: 3", "1:1: num_trial: unknown key (did you mean 'num_trials'?)"),
        ("parallel: 2", "1:1: parallel: unknown key"),
        ("search: tpe", "num_trials: missing"),
        ("metric: min val_los", "1:1: trainer.monitor: nothing logs a column 'val_los' (did you"),
        ("metric: val_loss", "1:1: metric: expected 'min COLUMN', 'max COLUMN' or 'off', fou"),
        ("num_trials: 3", "1:1: num_trials: a grid tries every combination once; remove it"),
        ("parameters: 3", "1:1: parameters: expected a mapping, found 3"),
        ("  seed: 3", "2:3: parameters.seed: expected a mapping, found 3"),
        ("  seed: {low: 1}", "2:3: parameters.seed: expected either low and high or values: [...]"),
        ("  seed: {low: 2, high: 1}", "2:3: parameters.seed: "),
        ("  seed: {low: 0, high: 1, log: true}", "2:3: parameters.seed: "),
        ("  seed: {low: 1, high: 2, step: -1}", "2:27: parameters.seed.step: expected "),
        ("  seed: {values: [1], log: true}", "2:3: parameters.seed: expected either low"),
        ("  seed: {lo: 1, high: 2}", "2:10: parameters.seed.lo: unknown key (did you mean 'low'?)"),
        ("  seed: {values: [1, -1]}", "2:3: seed: expected at least 0, found -1"),
        ("  name: {values: [a]}", "2:3: parameters.name: the same for all trials; remove it"),
        (
            "  optimizer.args.lr: {low: 0, high: 1.5}",
            "2:3: parameters.optimizer.args.lr: a grid nee",
        ),
        ("  optimizer.args.rl: {values: [1]}", "2:3: optimizer.args.rl: AdamW takes no 'rl'"),
        ("  metrics.4.name: {values: [a]}", "metrics.4: no item 4 in a list of 1, counted"),
    ],
)
def test_a_mistake_has_its_place_and_nothing_is_created(tmp_path, monkeypatch, tree, text, message):
    monkeypatch.chdir(tmp_path)
    Path("blobs.yaml").write_text(yaml.safe_dump(tree))
    if text.startswith(" "):
        text = f"parameters:\n{text}\nsearch: grid"
    elif text == "parameters: 3":
        text += "\nsearch: grid"
    elif text == "search: tpe":
        text += "\nparameters: {seed: {values: [1]}}"
    else:
        text += "\nparameters: {seed: {values: [1]}}" + "\nsearch: grid" * ("search" not in text)
    Path("sweep.yaml").write_text(text)
    result = CliRunner().invoke(app, ["-c", "blobs.yaml", "sweep.yaml"])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not Path("saved").exists()


def test_a_storage_that_cannot_be_opened_is_a_mistake(search, folder):
    storage = "sqlite:////no/such/folder/study.db"
    result = search({"seed": {"values": [2]}}, search="grid", storage=storage)
    assert result.exit_code == 2, result.output
    assert "storage: " in result.output
    assert "unable to open database file" in result.output
    assert not folder.exists()


def test_without_optuna_it_says_what_to_install(search, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = search({"seed": {"values": [2]}}, search="grid")
    assert (result.exit_code, result.output) == (2, "a sweep needs Optuna: pip install optuna\n")


def test_the_shipped_sweep_fits_its_config(project_root):
    configs = project_root / "configs"
    sweep = load_sweep(configs / "sweeps" / "digits.yaml", configs / "digits.yaml", [])
    assert sweep.num_trials == 12
