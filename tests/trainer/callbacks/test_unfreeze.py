"""Unfreeze: when frozen parameters train, and that a resume changes nothing."""

import pytest
import torch
from torch import nn

from base.errors import UsageError, UserError
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
        ({"params": "conv.*", "epoch": 0}, r"args\.epoch: .*0, found 0"),
        ({"params": "con.*", "epoch": 2}, r"Unfreeze: 'con\.\*' matches no parameter"),
    ],
)
def test_a_wrong_unfreeze_is_told(thawing, start, args, words):
    thawing["callbacks"][0]["args"] = args
    with pytest.raises(UserError, match=words):
        start(thawing)


def test_thawing_what_is_not_frozen_is_told(tree, start):
    tree["callbacks"] = [{"type": "Unfreeze", "args": {"params": "conv.*", "epoch": 2}}]
    with pytest.raises(UsageError, match=r"matches no parameter that model\.freeze froze"):
        start(tree)
