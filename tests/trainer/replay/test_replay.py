"""The step of a diverged run, run again."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from base import Callback
from base.errors import CheckpointError, DivergedError
from logger import RunLogger
from trainer import Trainer
from trainer.replay.replay import read_failure, replay


class Noise(Callback):
    """Adds draws of the run's generator to each batch."""

    def on_batch(self, trainer, batch):
        return batch[0] + torch.randn_like(batch[0]), batch[1]


class DividedByZero(nn.Module):
    """A network whose second layer divides by zero."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 3)
        self.second = nn.LogSoftmax(dim=1)

    def forward(self, x):
        x = self.first(x)
        return self.second(x / (x.detach() * 0))


class Folder:
    """Checkpoints in a folder of a run, where nothing is saved."""

    def __init__(self, run: Path):
        self.folder = run / "checkpoints"


def diverge(trainer: Trainer, run: Path) -> Path:
    """Train until the loss is not finite, and return the file that keeps the step."""
    with pytest.raises(DivergedError) as caught:
        trainer.fit(logger=RunLogger(None), checkpoints=Folder(run))
    path = run / "failure.pth"
    assert str(caught.value).endswith(f": {path}")
    return path


def test_the_module_is_named_that_first_was_not_finite(make_trainer, points, tmp_path):
    trainer = make_trainer(DividedByZero(), points, loss=F.nll_loss)
    state = read_failure(diverge(trainer, tmp_path))
    found = replay(make_trainer(DividedByZero(), points, loss=F.nll_loss), state)
    assert found == "first not finite: the output of second (LogSoftmax), 12 of 12 values"


def test_a_gradient_that_is_not_finite_is_found(make_trainer, points, tmp_path):
    def loss(output, target):  # finite, with a gradient that is not
        return F.cross_entropy(output, target) + output.abs().sum().mul(0).sqrt()

    state = make_trainer(nn.Linear(5, 3), points).state_dict()
    state["failed_batch"] = [part[:4] for part in points]
    found = replay(make_trainer(nn.Linear(5, 3), points, loss=loss), state)
    assert found.startswith("first not finite: the backward pass: Function 'MulBackward0'")


def test_weights_that_are_not_finite_before_the_step_are_named(make_trainer, points):
    trainer = make_trainer(nn.Linear(5, 3), points)
    with torch.no_grad():
        trainer.network.bias[1] = float("nan")
    state = trainer.state_dict() | {"failed_batch": [part[:4] for part in points]}
    found = replay(make_trainer(nn.Linear(5, 3), points), state)
    assert found == "first not finite: bias before the step, 1 of 3 values"


def test_the_failed_batch_is_changed_by_callbacks_as_it_was(make_trainer, points, tmp_path):
    seen = []

    class Spoiled(Trainer):
        def train_step(self, batch):
            seen.append(batch[0])
            loss = super().train_step(batch)
            return loss * float("inf") if len(seen) >= 6 else loss

    def make():
        return make_trainer(nn.Linear(5, 3), points, trainer_class=Spoiled, callbacks=(Noise(),))

    state = read_failure(diverge(make(), tmp_path))
    assert replay(make(), state).startswith("first not finite: the loss")
    assert len(seen) == 7
    assert torch.equal(seen[5], seen[6])
    assert not torch.equal(seen[4], seen[5])


def test_another_file_is_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: holds no failed batch: not kept by"):
        read_failure(tmp_path / "other.pth")
