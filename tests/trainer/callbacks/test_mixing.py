"""MixUp and CutMix: torchvision's own batches, and a run that resumes with them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from base.errors import ConfigError, UsageError
from trainer import Trainer
from trainer.callbacks.mixing import CutMix, MixUp


@pytest.fixture
def images():
    """20 images (20, 1, 6, 6) of three classes: 5 batches of 4."""
    return torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


@pytest.fixture
def mixing(tree):
    """A config that mixes half of its batches each way."""
    tree["callbacks"] = [
        {"type": "MixUp", "args": {"num_classes": 3, "alpha": 0.4, "p": 0.5}},
        {"type": "CutMix", "args": {"num_classes": 3}},
        "Interrupter",
    ]
    return tree


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_a_batch_is_mixed_as_torchvision_does(make_trainer, images, kind):
    callback = kind(num_classes=3, alpha=0.7)
    trainer = make_trainer(net(), images, callbacks=(callback,))
    batch = tuple(part[:4] for part in images)
    torch.manual_seed(3)
    mixed, target = trainer.prepare_batch(batch)
    torch.manual_seed(3)
    expected = getattr(v2, kind.__name__)(num_classes=3, alpha=0.7)(*batch)
    assert torch.equal(mixed, expected[0])
    assert torch.equal(target, expected[1])
    assert torch.equal(target.labels, expected[1].argmax(dim=1))
    assert not torch.equal(mixed, batch[0])
    assert not torch.equal(trainer.prepare_batch(batch)[1], target)  # another share


def test_a_share_of_the_batches_is_mixed_and_none_twice(images):
    batch = tuple(part[:4] for part in images)
    first, second = MixUp(3, p=0.5), CutMix(3, p=0.5)
    torch.manual_seed(0)
    once = [first.on_batch(None, batch) for _ in range(200)]
    is_mixed = [hasattr(target, "labels") for _, target in once]
    assert 70 < sum(is_mixed) < 130
    for each, was_mixed in zip(once, is_mixed, strict=True):
        assert not was_mixed or second.on_batch(None, each) is each


def test_metrics_see_the_class_that_a_sample_is_mostly_of(mixing, start):
    run = start(mixing, "optimizer.args.lr=0.02")
    row = torch.load(run / "checkpoints" / "checkpoint-epoch3.pth", weights_only=True)["row"]
    assert 0 < row["accuracy"] <= 1
    assert 0 < row["MulticlassF1Score"] <= 1  # of torchmetrics


@pytest.mark.parametrize("moment", [("step", 4), ("step", 8), ("epoch", 1)])
def test_a_resume_mixes_the_same_batches(mixing, whole_and_resumed, moment):
    whole, run = whole_and_resumed(mixing, moment)
    ends = [
        torch.load(each / "checkpoints" / "checkpoint-epoch3.pth", weights_only=True)
        for each in (whole, run)
    ]
    assert ends[0]["row"]["loss"] == ends[1]["row"]["loss"]
    assert all(
        torch.equal(ends[0]["model"][key], ends[1]["model"][key]) for key in ends[0]["model"]
    )


def test_two_ranks_mix_with_other_shares(mixing, start, two_processes, monkeypatch):
    def train_rank(rank):
        targets = []
        update_metrics = Trainer.update_metrics

        def watched(trainer, output, target):
            targets.append(target.clone())
            update_metrics(trainer, output, target)

        monkeypatch.setattr(Trainer, "update_metrics", watched)
        mixing["callbacks"] = mixing["callbacks"][1:2]
        start(mixing, "trainer.epochs=1", "lr_scheduler=null")
        return [target.max().item() for target in targets if target.ndim == 2]

    one, other = two_processes(train_rank)
    assert len(one) == len(other) > 3
    assert one != other


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"num_classes": 1}, "num_classes: .*2, found 1"),
        ({"num_classes": 3, "alpha": 0}, "alpha: .*0, found 0"),
        ({"num_classes": 3, "p": 0.0}, "p: .*0, found 0.0"),
        ({"num_classes": 3, "p": 1.5}, "p: expected .*1.*, found 1.5"),
    ],
)
def test_a_number_out_of_range_is_told(mixing, load, args, words):
    mixing["callbacks"] = [{"type": "CutMix", "args": args}]
    with pytest.raises(ConfigError, match=f"callbacks.0.args.{words}"):
        load(mixing)


def test_a_loss_that_takes_no_probabilities_is_told_before_training(make_trainer, images, fit):
    trainer = make_trainer(net(), images, loss=F.nll_loss, callbacks=(MixUp(3),))
    with pytest.raises(UsageError, match=r"MixUp: the loss does not take targets \(B, 3\) of prob"):
        fit(trainer)
    assert trainer.step == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x.flatten(1), y), "4 dims, but got 2"),
        (lambda x, y: (x, y.float()), "one_hot is only applicable to index tensor"),
        (lambda x, y: ((x * 255).byte(), y), "Byte"),
        (lambda x, y: (x, y + 9), "Class values must be smaller"),
    ],
)
def test_a_batch_that_cannot_be_mixed_is_told(images, change, words):
    expected = r"MixUp: expected float images \(B, C, H, W\) and class numbers \(B,\) below 3: "
    with pytest.raises(UsageError, match=f"{expected}.*{words}"):
        MixUp(3).on_batch(None, change(*(part[:4] for part in images)))
