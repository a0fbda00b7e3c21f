"""The sheet of --check where model and data do not fit one another."""

import pytest
import torch
from torch import nn

from base import Callback
from base.errors import UsageError
from trainer import Trainer
from trainer.dry_run import dry_run


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(5, 4), nn.Linear(7, 3)), r"7x3\) \(target of shape \(4,\)\)"),
        (nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)), "Target 2 is out of bounds"),
    ],
)
def test_a_first_batch_that_fails_is_told_with_the_layers_it_came_through(
    make_trainer, points, capsys, model, words
):
    torch.manual_seed(0)
    with pytest.raises(UsageError, match=f"the first batch fails: .*{words}.*--debug shows where"):
        dry_run(make_trainer(model, points))
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["input", "4x5"] in rows
    assert ["0", "Linear", "4x4"] in rows


class Picky(Callback):
    """Fits no model."""

    def on_fit_start(self, trainer):
        raise UsageError("Picky: 'head.*' matches no parameter")


def test_a_callback_that_does_not_fit_the_model_is_told(make_trainer, points):
    trainer = make_trainer(nn.Linear(5, 3), points, callbacks=(Picky(),))
    with pytest.raises(UsageError, match=r"Picky: 'head\.\*' matches no parameter"):
        dry_run(trainer)


def test_an_evaluation_of_ones_own_is_tried_as_well(make_trainer, points, capsys):
    class Own(Trainer):
        def evaluate(self):
            return {"own": 0.5}

    dry_run(make_trainer(nn.Linear(5, 3), points, valid=points, trainer_class=Own))
    assert "one validation batch: own 0.5" in capsys.readouterr().out


def test_one_batch_is_validated(make_trainer, points):
    trainer = make_trainer(nn.Linear(5, 3), points, valid=points)
    dry_run(trainer)
    assert trainer.valid_metrics.sums["loss"][1] == 4
