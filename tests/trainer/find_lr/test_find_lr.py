"""The range test of learning rates: what it suggests, and when it stops."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

from base.errors import DivergedError, UsageError
from trainer import Trainer
from trainer.assembly import build_trainer
from trainer.find_lr.__main__ import app
from trainer.find_lr.find_lr import NUM_STEPS, find_lr, smoothed, steepest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["__main__.py", "-c", "my tree.yaml", "seed=1"])
    return tmp_path


class Watching(Trainer):
    """Remembers the rates of every step."""

    def optimizer_step(self):
        self.rates = [*getattr(self, "rates", []), [g["lr"] for g in self.optimizer.param_groups]]
        super().optimizer_step()


def test_the_rate_of_the_steepest_descent_is_suggested():
    rates = np.geomspace(1e-7, 10, 200)
    logs = np.log10(rates)
    falling = 2 - 1.5 / (1 + np.exp(-4 * (logs + 3)))  # steepest at 1e-3
    assert steepest(rates, falling) == pytest.approx(1e-3, rel=0.15)
    peak = np.exp(-((logs + 0.9) ** 2) / 0.05)  # up at 0.1 and down steeply
    assert steepest(rates, falling + peak) == pytest.approx(1e-3, rel=0.15)
    assert steepest(rates, np.full(200, 2.0)) is None
    assert steepest(rates, np.linspace(2, 3, 200)) is None


def test_smoothing_keeps_what_is_even_and_takes_the_mean_of_neighbours():
    assert smoothed([3.0] * 20) == pytest.approx([3.0] * 20)
    assert smoothed(list(range(20)))[10] == pytest.approx(10)
    assert smoothed([0.0, 9.0])[0] == pytest.approx(4.5)


def test_a_diverging_loss_ends_the_search_without_an_error(make_trainer, points, here, caplog):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3))
    trainer = make_trainer(model, (points[0] * 3, points[1]), trainer_class=Watching)
    rate = find_lr(trainer)
    assert 1e-4 < rate < 1
    used = [rates[0] for rates in trainer.rates]
    assert 50 < len(used) <= NUM_STEPS
    assert used[0] == pytest.approx(1e-7)
    assert used == pytest.approx(list(1e-7 * 1e8 ** (np.arange(len(used)) / (NUM_STEPS - 1))))
    assert [path.name for path in here.iterdir()] == ["test-lr-finder.png"]


def test_a_loss_that_is_not_finite_ends_it_too(make_trainer, points, here):
    class Overflowing(Watching):
        def train_step(self, batch):
            loss = super().train_step(batch)
            return loss * float("nan") if len(getattr(self, "rates", [])) == 40 else loss

    trainer = make_trainer(nn.Linear(5, 3), points, trainer_class=Overflowing)
    find_lr(trainer)
    assert len(trainer.rates) == 40


def test_a_loss_that_never_is_finite_is_an_error(make_trainer, points, here):
    model = nn.Linear(5, 3)
    nn.init.constant_(model.bias, float("inf"))
    with pytest.raises(DivergedError, match="not finite at a learning rate of 1e-07"):
        find_lr(make_trainer(model, points))


def test_a_step_is_a_whole_group_of_batches(make_trainer, points, here):
    trainer = make_trainer(nn.Linear(5, 3), points, trainer_class=Watching, accumulate=3)
    sizes = []
    prepare_batch = trainer.prepare_batch
    trainer.prepare_batch = lambda batch: (sizes.append(len(batch[0])), prepare_batch(batch))[1]
    find_lr(trainer)
    assert sizes[:8] == [4, 4, 4, 4, 4, 4, 2, 4]  # 7 batches: groups of 3, 3 and 1, then again
    assert len(sizes) / len(trainer.rates) == pytest.approx(7 / 3, rel=0.05)


@pytest.mark.parametrize("schedule", [None, {"type": "OneCycleLR", "interval": "step"}])
def test_groups_keep_the_ratio_of_the_config(tree, load, here, monkeypatch, caplog, schedule):
    import trainer.find_lr.find_lr as module

    tree["optimizer"]["param_groups"] = [{"params": "head.*", "lr": 0.005}]  # of 0.05
    tree["lr_scheduler"] = schedule
    built = build_trainer(load(tree), torch.device("cpu"))
    seen = []
    built.optimizer_step = lambda: seen.append([g["lr"] for g in built.optimizer.param_groups])
    monkeypatch.setattr(module, "steepest", lambda rates, losses: 0.0123)
    monkeypatch.setattr(module.log, "propagate", True)
    monkeypatch.setattr(module, "NUM_STEPS", 60)
    caplog.set_level("INFO", "train")
    rate = find_lr(built)
    assert all(head == pytest.approx(rest / 10) for head, rest in seen)
    expected = f"train.py -c 'my tree.yaml' seed=1 --lr {rate:g} optimizer.param_groups.0.lr="
    assert f"suggestion: python {expected}{rate / 10:.2g}" in caplog.text
    assert (here / "blobs-lr-finder.png").read_bytes().startswith(b"\x89PNG")
    assert not (here / "saved").exists()


def test_a_loss_that_falls_nowhere_has_no_suggestion(make_trainer, points, here, caplog):
    class Constant(Trainer):
        def train_step(self, batch):
            return super().train_step(batch) * 0 + 1

    assert find_lr(make_trainer(nn.Linear(5, 3), points, trainer_class=Constant)) is None


def test_what_has_no_one_rate_is_refused(make_trainer, points, here):
    class Own(Trainer):
        def train_batch(self, batch):
            raise AssertionError

    model = nn.Linear(5, 3)
    with pytest.raises(UsageError, match="expected one optimizer that steps at a given"):
        find_lr(make_trainer(model, points, trainer_class=Own))
    with pytest.raises(UsageError, match="LBFGS searches for its own"):
        find_lr(make_trainer(model, points, optimizer=torch.optim.LBFGS(model.parameters())))
    assert list(here.iterdir()) == []


def test_half_precision_is_searched_with_its_scaler(make_trainer, points, here):
    model = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3))
    trainer = make_trainer(model, points, precision="fp16", loss=F.cross_entropy)
    assert trainer.scaler.is_enabled()
    assert find_lr(trainer) is not None


def test_the_command_searches_in_a_config_with_overrides(tree, here, monkeypatch):
    monkeypatch.setattr("trainer.find_lr.find_lr.NUM_STEPS", 20)
    (here / "my tree.yaml").write_text(json.dumps(tree))
    result = CliRunner().invoke(app, ["-c", "my tree.yaml", "--bs", "5", "name=other"])
    assert result.exit_code == 0, result.output
    assert "20 steps, up to a learning rate of 10: other-lr-finder.png" in result.output
    assert not (here / "saved").exists()
