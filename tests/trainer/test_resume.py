"""A run that was interrupted, wherever, ends as one that was not."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from base.errors import StoppedError

TIMING = ("seconds", "samples_per_second")


def final_state(run: Path, epoch: int = 3) -> dict[str, Any]:
    state = torch.load(run / "checkpoints" / f"checkpoint-epoch{epoch}.pth", weights_only=True)
    state["row"] = without_timing(state["row"])
    state["monitor"]["best_row"] = without_timing(state["monitor"]["best_row"])
    return {key: value for key, value in state.items() if key != "seconds"}


def without_timing(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMING}


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return [without_timing(row) for row in csv.DictReader(file)]


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    found = {}
    for part in ("train", "valid"):
        events = EventAccumulator(str(run / "tensorboard" / part), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found[f"{part}/{tag}"] = [(e.step, e.value) for e in events.Scalars(tag)]
    return found


def summary(run: Path) -> dict[str, Any]:
    read = json.loads((run / "summary.json").read_text())
    return read | {name: without_timing(read[name]) for name in ("best", "last")}


def differences(one: Any, other: Any) -> list[str]:
    """Return the places at which two states differ in a single bit."""
    leaves, others = dict(flat(one)), dict(flat(other))
    return [
        path
        for path in leaves.keys() | others.keys()
        if path not in leaves or path not in others or not is_same(leaves[path], others[path])
    ]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(item, f"{path}.{key}")
    else:
        yield path, value


def is_same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def assert_same_run(run: Path, whole: Path) -> None:
    assert differences(final_state(run), final_state(whole)) == []
    best = [torch.load(r / "checkpoints/model_best.pth", weights_only=True) for r in (run, whole)]
    assert differences(best[0]["ema"], best[1]["ema"]) == []
    assert rows(run) == rows(whole)
    assert curves(run) == curves(whole)
    assert summary(run) == summary(whole)


@pytest.fixture
def until_done(start, tree, interrupt, power_cut):
    """Return a function that runs one command again and again until it is through."""

    def run_until_done(*overrides: str) -> tuple[Path, int]:
        for count in range(20):
            try:
                return start(tree, *overrides), count
            except (StoppedError, power_cut):
                continue
        raise AssertionError("it never ended")

    return run_until_done


@pytest.fixture
def whole(start, tree) -> Path:
    """The run that nothing interrupts."""
    return start(tree, run_id="whole")


def test_the_whole_run_has_what_the_others_are_compared_by(whole):
    state = final_state(whole)
    assert state["step"] == 15
    assert state["callbacks"] == [{"steps": list(range(1, 16)), "epochs": [1, 2, 3]}]
    assert len(rows(whole)) == 3
    found = curves(whole)
    assert [step for step, _ in found["train/loss"]] == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    assert [step for step, _ in found["valid/MulticlassF1Score"]] == [5, 10, 15]
    assert differences(state["ema"], state["model"]) != []


@pytest.mark.parametrize(
    "moment",
    [
        ("step", 1),
        ("step", 4),  # at a logged step
        ("step", 5),  # the last of an epoch, before validation
        ("step", 8),
        ("step", 15),
        ("valid", 1, 1),
        ("valid", 2, 2),
        ("valid", 3, 1),
        ("epoch", 1),
        ("epoch", 3),
    ],
)
def test_a_run_stopped_by_a_signal_ends_as_if_it_had_not_been(until_done, interrupt, whole, moment):
    interrupt[moment] = "SIGTERM"
    run, count = until_done()
    assert count == (0 if moment == ("epoch", 3) else 1)  # there was nothing left to stop
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    "moment", [("step", 2), ("step", 5), ("step", 9), ("valid", 2, 2), ("epoch", 2), ("epoch", 3)]
)
def test_a_run_that_crashed_ends_as_if_it_had_not(until_done, interrupt, whole, moment):
    interrupt[moment] = "crash"
    run, count = until_done("trainer.save_steps=3")
    assert count == 1
    state, expected = final_state(run), final_state(whole)
    del state["config"], expected["config"]  # of which save_steps differs
    assert differences(state, expected) == []
    assert rows(run) == rows(whole)
    assert curves(run) == curves(whole)
    assert summary(run) == summary(whole)


def test_validation_that_was_logged_but_not_saved_is_logged_once(
    until_done, interrupt, start, tree
):
    tree["trainer"] |= {"save_steps": 5, "save_period": 2, "monitor": "off"}
    whole = start(tree, run_id="whole")
    interrupt["epoch", 1] = "crash"
    run, count = until_done()
    assert count == 1
    assert curves(run) == curves(whole)
    assert rows(run) == rows(whole)


def test_a_signal_ends_validation_at_once(start, tree, interrupt):
    interrupt |= {("valid", 1, 1): "SIGTERM", ("valid", 1, 2): "crash"}
    with pytest.raises(StoppedError):
        start(tree)


def test_a_run_that_is_interrupted_five_times_ends_as_if_it_had_not_been(
    until_done, interrupt, whole
):
    interrupt |= {
        ("step", 3): "SIGINT",
        ("valid", 1, 2): "SIGTERM",
        ("step", 6): "SIGUSR1",
        ("step", 9): "crash",
        ("epoch", 2): "SIGTERM",
    }
    run, count = until_done()
    assert count == 5
    assert_same_run(run, whole)


def test_workers_change_nothing_before_or_after_an_interruption(until_done, interrupt, whole):
    interrupt |= {("step", 7): "SIGTERM", ("valid", 2, 1): "SIGTERM"}
    run, _ = until_done("data_loader.args.num_workers=2")
    state, expected = final_state(run), final_state(whole)
    del state["config"], expected["config"]
    assert differences(state, expected) == []
    assert rows(run) == rows(whole)


@pytest.mark.parametrize("save_period", [2, 5])
def test_a_signal_at_an_epochs_end_saves_whatever_the_period(
    start, tree, interrupt, save_period, tmp_path
):
    interrupt["epoch", 1] = "SIGINT"
    tree["trainer"] |= {"save_period": save_period, "monitor": "off"}
    with pytest.raises(StoppedError, match="stopped by SIGINT after epoch 1, step 5; saved in"):
        start(tree)
    folder = tmp_path / "saved/blobs/run/checkpoints"
    assert [path.name for path in folder.glob("*.pth")] == ["checkpoint-epoch1.pth"]


def test_a_stop_says_where_it_was_saved_and_how_to_go_on(start, tree, interrupt, tmp_path):
    interrupt["step", 8] = "SIGTERM"
    with pytest.raises(StoppedError) as caught:
        start(tree)
    run = tmp_path / "saved/blobs/run"
    assert str(caught.value) == (
        f"stopped by SIGTERM in epoch 2, step 8; saved in {run}\n"
        f"continue with: python train.py -r {run}"
    )
    assert caught.value.exit_code == 143


def test_the_count_of_epochs_without_improvement_survives(until_done, interrupt, start, tree):
    tree["trainer"] |= {"epochs": 8, "monitor": "max lr", "early_stop": 3}
    tree["lr_scheduler"] = {"type": "ExponentialLR", "args": {"gamma": 0.5}}
    whole = start(tree, run_id="whole")
    assert summary(whole)["epochs"] == 4
    interrupt |= {("valid", 2, 1): "SIGTERM", ("step", 13): "SIGTERM", ("valid", 4, 2): "SIGTERM"}
    run, count = until_done()
    assert count == 3
    assert rows(run) == rows(whole)
    assert summary(run) == summary(whole)
    assert differences(final_state(run, 4), final_state(whole, 4)) == []


def test_save_steps_saves_an_epochs_last_step_where_its_end_is_not_saved(start, tree, tmp_path):
    start(tree, "trainer.save_steps=5", "trainer.save_period=2", "trainer.keep_last=9")
    names = {path.name for path in (tmp_path / "saved/blobs/run/checkpoints").glob("check*.pth")}
    assert names == {"checkpoint-epoch1-step5.pth", "checkpoint-epoch2.pth",
                     "checkpoint-epoch3-step15.pth", "checkpoint-epoch3.pth"}  # fmt: skip
