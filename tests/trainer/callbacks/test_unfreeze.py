"""The ready callbacks: what they change, and that a resume changes nothing."""

import json

import pytest
import torch
from torch import nn

from base.errors import ConfigError, DivergedError, UsageError, UserError
from trainer.callbacks.save_best import SaveBest
from trainer.callbacks.unfreeze import Unfreeze


def weights(run, epoch):
    path = run / "checkpoints" / f"checkpoint-epoch{epoch}.pth"
    return torch.load(path, weights_only=True)["model"]


@pytest.fixture
def thawing(tree):
    """A config that trains the convolution from the second epoch on."""
    tree["model"] = {"type": tree["model"], "freeze": ["conv.*", "norm.*"]}
    tree["callbacks"] = [{"type": "Unfreeze", "args": {"params": "conv.*", "epoch": 2}}]
    return tree


def test_parameters_are_frozen_until_their_epoch(thawing, start):
    run = start(thawing, "trainer.keep_last=9")
    first, second, third = (weights(run, epoch) for epoch in (1, 2, 3))
    assert not torch.equal(first["head.weight"], second["head.weight"])
    assert not torch.equal(first["conv.weight"], second["conv.weight"])
    assert not torch.equal(second["conv.weight"], third["conv.weight"])
    for frozen in ("norm.weight", "norm.running_mean"):
        assert torch.equal(first[frozen], third[frozen])
    torch.manual_seed(0)
    plain = start(thawing, "callbacks=[]", "trainer.epochs=1", "lr_scheduler=null", run_id="plain")
    assert torch.equal(first["conv.weight"], weights(plain, 1)["conv.weight"])


def test_a_method_that_nothing_calls_is_told(tree, start, monkeypatch):
    tree["callbacks"] = [{"type": "SaveBest", "args": {"monitor": "max seconds"}}]
    monkeypatch.setattr(SaveBest, "on_epoch_ended", lambda self: None, raising=False)
    message = r"callbacks.0: nothing calls its on_epoch_ended\(\) \(did you mean 'on_epoch_end'\?\)"
    with pytest.raises(ConfigError, match=message):
        start(tree)


@pytest.mark.parametrize("moment", [("step", 3), ("step", 7)])
def test_a_resume_before_or_after_thawing_gives_the_same(thawing, whole_and_resumed, moment):
    thawing["callbacks"].append("Interrupter")
    whole, run = whole_and_resumed(thawing, moment)
    expected, found = weights(whole, 3), weights(run, 3)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_thawing_wraps_the_model_anew_for_several_ranks(make_trainer, points, fit, monkeypatch):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    trainer = make_trainer(model, points, epochs=2, callbacks=(Unfreeze("0.*", 2),))
    wrapped = []
    monkeypatch.setattr(trainer, "wrap", lambda: wrapped.append(trainer.epoch))
    fit(trainer)
    assert wrapped == [1]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"params": "conv.*", "epoch": 0}, "Unfreeze: epoch is 0, expected 1 or more"),
        ({"params": "con.*", "epoch": 2}, r"Unfreeze: 'con\.\*' matches no parameter"),
    ],
)
def test_a_wrong_unfreeze_is_told(thawing, start, args, words):
    thawing["callbacks"][0]["args"] = args
    with pytest.raises(UserError, match=words):
        start(thawing)


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


@pytest.mark.parametrize("monitor", ["accuracy", "best accuracy"])
def test_a_monitor_that_is_none_is_told(monitor):
    with pytest.raises(UsageError, match="SaveBest: monitor: expected 'min COLUMN'"):
        SaveBest(monitor)


def test_thawing_what_is_not_frozen_is_told(tree, start):
    tree["callbacks"] = [{"type": "Unfreeze", "args": {"params": "conv.*", "epoch": 2}}]
    with pytest.raises(UsageError, match=r"matches no parameter that model\.freeze keeps"):
        start(tree)


def test_a_model_that_is_not_finite_is_no_best(make_trainer, points):
    trainer = make_trainer(nn.Linear(5, 3), points)
    trainer.checkpoints = None
    with torch.no_grad():
        trainer.network.weight[0, 0] = float("nan")
    with pytest.raises(DivergedError, match="weight is not finite"):
        trainer.save_best("accuracy")
