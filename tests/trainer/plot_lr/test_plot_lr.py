"""The drawn learning rates are those that training would see."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as by_torch
from typer.testing import CliRunner

from base.config.check import check_config
from base.config.source import Source
from base.errors import ConfigError, UsageError
from logger import setup_logging
from trainer.plot_lr.__main__ import app
from trainer.plot_lr.plot_lr import plot_lr

EPOCHS, BATCHES = 6, 4
RATES = [1.0, 0.25]  # of the two parameter groups


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    """The rows that were drawn."""
    rows = []
    name = "trainer.plot_lr.plot_lr.plot_curves"
    monkeypatch.setattr(name, lambda found, path, **more: rows.extend(found))
    return rows


def config_of(kind, args=None, interval="epoch"):
    tree = {
        "name": "curve",
        "dataset": {"type": "Blobs", "args": {"size": 16}},
        "data_loader": {"args": {"batch_size": 4}},
        "model": {"type": "Linear", "args": [3, 1]},
        "loss": "mse_loss",
        "optimizer": {
            "type": "SGD",
            "args": {"lr": RATES[0], "momentum": 0.9},
            "param_groups": [{"params": "weight"}, {"params": "bias", "lr": RATES[1]}],
        },
        "lr_scheduler": {"type": kind, "args": args or {}, "interval": interval},
        "trainer": {"epochs": EPOCHS, "monitor": "min loss"},
    }
    return check_config(Source(tree))


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize(
    ("kind", "args"),
    [("LinearLR", {"total_iters": 4}), ("CyclicLR", {"base_lr": 0.1, "max_lr": [0.5, 0.9]})],
)
def test_what_is_drawn_is_what_training_would_see(drawn, kind, args, interval):
    plot_lr(config_of(kind, args, interval))
    assert len(drawn) == (EPOCHS * BATCHES if interval == "step" else 2 * EPOCHS)
    model = nn.Linear(3, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": RATES[1]}]
    optimizer = torch.optim.SGD(groups, lr=RATES[0], momentum=0.9)
    scheduler = getattr(by_torch, kind)(optimizer, **args)
    expected = []
    for step in range(EPOCHS * BATCHES):
        expected.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if interval == "step" or (step + 1) % BATCHES == 0:
            scheduler.step()
    for row in drawn:
        assert [row["group 0: weight"], row["group 1: bias"]] == expected[row["step"]]
    assert {drawn[0]["step"], drawn[-1]["step"]} == {0, EPOCHS * BATCHES - 1}


def test_one_file_is_written_and_the_rates_are_said(tmp_path, capsys):
    setup_logging(None)
    path = plot_lr(config_of("LinearLR", {"start_factor": 0.5}))
    assert [file.name for file in tmp_path.iterdir()] == ["curve-lr.png"]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines() == [
        "lr of group 0: weight: first 0.5, peak 1, last 1",
        "lr of group 1: bias: first 0.125, peak 0.25, last 0.25",
        "6 epochs of 4 steps: curve-lr.png",
    ]


def test_a_plateau_cannot_be_drawn(tmp_path):
    with pytest.raises(ConfigError, match="ReduceLROnPlateau follows 'min loss': only train"):
        plot_lr(config_of("ReduceLROnPlateau"))
    assert not [*tmp_path.iterdir()]


def test_a_schedule_that_ends_before_the_run_is_found():
    with pytest.raises(ConfigError, match="lr_scheduler: ends before the run's 24 steps: "):
        plot_lr(config_of("OneCycleLR", {"total_steps": 5}, "step"))


def test_an_epoch_without_a_rate_is_found():
    with pytest.raises(UsageError, match=r"has no value at epoch 4: .*division by zero"):
        plot_lr(config_of("LambdaLR", {"lr_lambda": "1 / (epoch - 4)"}))


def test_the_command_draws_a_config_with_overrides(tmp_path, drawn):
    config = config_of("LinearLR")
    (tmp_path / "curve.yaml").write_text(config.to_yaml())
    result = CliRunner().invoke(app, ["-c", "curve.yaml", "--lr", "0.5", "trainer.epochs=2"])
    assert result.exit_code == 0, result.output
    assert drawn[0]["group 0: weight"] == pytest.approx(0.5 / 3)
    assert drawn[-1]["step"] == 7
