"""Overfitting one batch: what can, and what is told of what cannot."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from base.errors import DivergedError, UsageError
from model.metric import accuracy
from trainer import Trainer
from trainer.overfit.overfit import overfit


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3))


@pytest.fixture
def adam():
    return lambda model: torch.optim.Adam(model.parameters(), lr=0.02)


@pytest.fixture
def told(caplog, monkeypatch):
    """What was logged, as text."""
    import logging

    monkeypatch.setattr(logging.getLogger("train"), "propagate", True)
    caplog.set_level("INFO", "train")
    return lambda: caplog.text


def test_a_sound_model_learns_the_same_tensors_at_a_constant_rate(make_trainer, points, told, adam):
    seen = []

    class Watching(Trainer):
        def train_step(self, batch):
            seen.append((batch[0], self.optimizer.param_groups[0]["lr"], self.model.training))
            return super().train_step(batch)

    model = net()
    optimizer = adam(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=7)
    trainer = make_trainer(
        model, points, optimizer=optimizer, lr_scheduler=schedule, interval="step", accumulate=2,
        trainer_class=Watching, metrics={"accuracy": accuracy},
    )  # fmt: skip
    overfit(trainer, 300)
    assert 2 < len(seen) < 300  # it stops when there is nothing left to learn
    assert all(each[0] is seen[0][0] and each[1:] == (0.02, True) for each in seen)
    assert torch.equal(seen[0][0], points[0][:4])
    with torch.no_grad():
        loss = F.cross_entropy(model(points[0][:4]), points[1][:4])
    assert loss < 0.02 * 1.2
    assert "the model can overfit a batch of 4" in told()
    assert "accuracy 1" in told()


def test_a_regression_is_measured_by_its_first_loss(make_trainer, told):
    torch.manual_seed(0)
    inputs = torch.randn(8, 5)
    data = (inputs, 1000 * inputs.sum(dim=1, keepdim=True))
    model = nn.Linear(5, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    overfit(make_trainer(model, data, batch_size=8, loss=F.mse_loss, optimizer=optimizer), 300)
    assert "can overfit a batch" in told()


def test_parameters_that_stay_as_they_were_are_named(make_trainer, points, adam):
    model = net()
    model[0].requires_grad_(False)
    model[2].weight.requires_grad_(False)
    with pytest.raises(UsageError) as error:
        overfit(make_trainer(model, points, optimizer=adam(model)), 30)
    text = str(error.value)
    assert text.startswith("one batch of 4 was not learned in 30 steps: the loss went from ")
    assert "parameters that have not changed: 0.weight, 0.bias, 2.weight" in text
    assert "2.bias" not in text
    assert "label smoothing" in text
    assert error.value.exit_code == 2


def test_a_model_that_is_frozen_or_detached_is_told(make_trainer, points):
    with pytest.raises(UsageError, match="every parameter is frozen"):
        overfit(make_trainer(net().requires_grad_(False), points), 30)

    class Detached(Trainer):
        def train_step(self, batch):
            return super().train_step(batch).detach().requires_grad_()

    with pytest.raises(UsageError, match=r"have not changed: 0\.weight, 0\.bias"):
        overfit(make_trainer(net(), points, trainer_class=Detached), 30)


def test_the_wrong_loss_is_told(make_trainer, points, adam):
    model = net()
    trainer = make_trainer(
        model,
        points,
        loss=lambda o, t: F.cross_entropy(o.abs().neg(), t) + 1,
        optimizer=adam(model),
    )
    with pytest.raises(UsageError, match=r"expected 0\.0\d+ or less(.|\n)*does it fit the model's"):
        overfit(trainer, 100)


def test_too_few_steps_are_told(make_trainer, points, adam):
    model = net()
    with pytest.raises(UsageError, match="more steps, or another learning rate"):
        overfit(make_trainer(model, points, optimizer=adam(model)), 12)
    with pytest.raises(UsageError, match="--steps is 1, expected 2 or more"):
        overfit(make_trainer(model, points), 1)


def test_a_loss_that_is_not_finite_is_an_error_of_its_own(make_trainer, points):
    optimizer = torch.optim.SGD((model := net()).parameters(), lr=1e30)
    with pytest.raises(DivergedError, match="training diverged"):
        overfit(make_trainer(model, points, optimizer=optimizer), 30)
