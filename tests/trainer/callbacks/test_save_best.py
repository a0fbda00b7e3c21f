"""SaveBest: the best state by another column than the monitor's."""

import json

import pytest
import torch
from torch import nn

from base.errors import ConfigError, DivergedError
from trainer.callbacks.save_best import SaveBest


def weights(run, epoch):
    path = run / "checkpoints" / f"checkpoint-epoch{epoch}.pth"
    return torch.load(path, weights_only=True)["model"]


def test_the_best_by_another_column_is_kept_too(tree, start, tmp_path):
    tree["callbacks"] = [{"type": "SaveBest", "args": {"monitor": "max seconds"}}]
    tree["trainer"] |= {"monitor": "min epoch", "keep_last": 9}
    run = start(tree)
    best = torch.load(run / "checkpoints" / "model_best_seconds.pth", weights_only=True)
    rows = [
        torch.load(run / f"checkpoints/checkpoint-epoch{epoch}.pth", weights_only=True)["row"]
        for epoch in (1, 2, 3)
    ]
    longest = max(rows, key=lambda row: row["seconds"])
    assert best["row"] == longest
    assert best["batch"] == 0
    expected = weights(run, longest["epoch"])
    assert all(torch.equal(best["model"][name], expected[name]) for name in expected)
    other = torch.load(run / "checkpoints" / "model_best.pth", weights_only=True)
    assert other["epoch"] == 1
    assert json.loads((run / "summary.json").read_text())["best"]["epoch"] == 1


def test_the_best_so_far_survives_a_checkpoint():
    first, second = SaveBest("max accuracy"), SaveBest("max accuracy")
    first.monitor.update({"epoch": 1, "accuracy": 0.7})
    second.load_state_dict(first.state_dict())
    assert not second.monitor.update({"epoch": 2, "accuracy": 0.6})
    assert second.monitor.update({"epoch": 3, "accuracy": 0.8})


@pytest.mark.parametrize("monitor", ["accuracy", "best accuracy", "off"])
def test_a_monitor_that_is_none_is_told(tree, load, monitor):
    tree["callbacks"] = [{"type": "SaveBest", "args": {"monitor": monitor}}]
    words = rf"callbacks\.0\.args\.monitor: expected 'min COLUMN'.*found '{monitor}'"
    with pytest.raises(ConfigError, match=words):
        load(tree)


@pytest.mark.parametrize("args", [{"monitor": "max val_acuracy"}, ["max val_acuracy"]])
def test_a_column_that_nothing_logs_is_told(tree, load, args):
    tree["callbacks"] = [{"type": "SaveBest", "args": args}]
    words = r"callbacks\.0\.args\.monitor: nothing logs a column 'val_acuracy' \(did you mean"
    with pytest.raises(ConfigError, match=words):
        load(tree)


def test_a_method_that_nothing_calls_is_told(tree, start, monkeypatch):
    tree["callbacks"] = [{"type": "SaveBest", "args": {"monitor": "max seconds"}}]
    monkeypatch.setattr(SaveBest, "on_epoch_ended", lambda self: None, raising=False)
    message = r"callbacks.0: nothing calls its on_epoch_ended\(\) \(did you mean 'on_epoch_end'\?\)"
    with pytest.raises(ConfigError, match=message):
        start(tree)


def test_a_model_that_is_not_finite_is_no_best(make_trainer, points):
    trainer = make_trainer(nn.Linear(5, 3), points)
    trainer.checkpoints = None
    with torch.no_grad():
        trainer.network.weight[0, 0] = float("nan")
    with pytest.raises(DivergedError, match="weight is not finite"):
        trainer.save_best("accuracy")


def test_a_column_that_nothing_logs_is_told_before_training(tree, load):
    tree["callbacks"] = [{"type": "SaveBest", "args": {"monitor": "max secnds"}}]
    message = r"callbacks\.0\.args\.monitor: nothing logs a column 'secnds' \(did you mean"
    with pytest.raises(ConfigError, match=message):
        load(tree)
