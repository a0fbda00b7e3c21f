"""Models of every kind, named in a config, learn what they should."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from base.checkpoint.checkpoints import read_checkpoint
from base.registry import DATASETS, MODELS


@DATASETS.register()
class StraightLine(TensorDataset):
    """Points (1,) and what y = 2 x + 1 gives for them (1,)."""

    def __init__(self) -> None:
        x = torch.linspace(-1, 1, 64)[:, None]
        super().__init__(x, 2 * x + 1)


@DATASETS.register()
class Tones(TensorDataset):
    """Noisy signals (1, 64), as from a microphone: low tones are class 0, high ones class 1."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        target = torch.arange(128) % 2
        phase = torch.rand(128, 1, generator=generator) * 6
        wave = torch.sin(torch.arange(64) * (0.2 + 0.6 * target[:, None]) + phase)
        noise = torch.randn(128, 64, generator=generator) / 5
        super().__init__((wave + noise)[:, None], target)


@MODELS.register()
class Branches(nn.Module):
    """Two ways through, and layers in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = nn.ModuleDict({"wide": nn.Linear(1, 8), "narrow": nn.Linear(1, 2)})
        self.layers = nn.ModuleList([nn.Linear(10, 10), nn.Linear(10, 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([way(x) for way in self.ways.values()], dim=1)  # (B, 10)
        for layer in self.layers:
            x = layer(x.relu())
        return x


def line(model) -> dict:
    return {
        "name": "models",
        "dataset": "StraightLine",
        "data_loader": {"args": {"batch_size": 16}},
        "model": model,
        "loss": "mse_loss",
        "optimizer": {"type": "Adam", "args": {"lr": 0.05}},
        "trainer": {"epochs": 60, "save_dir": "SAVED", "save_period": 60},
        "logger": {"tensorboard": False},
    }


@pytest.fixture
def trained(start, tmp_path):
    """Return a function that trains a config; it returns the weights and the last row."""

    def train(tree: dict) -> tuple[dict[str, Tensor], dict[str, float]]:
        tree["trainer"]["save_dir"] = str(tmp_path / "saved")
        epochs = tree["trainer"]["epochs"]
        state = read_checkpoint(start(tree) / "checkpoints" / f"checkpoint-epoch{epochs}.pth")
        return state["model"], state["row"]

    return train


def test_a_single_layer_finds_the_line(trained):
    weights, _ = trained(line({"type": "Linear", "args": [1, 1]}))
    assert weights["weight"].item() == pytest.approx(2, abs=0.02)
    assert weights["bias"].item() == pytest.approx(1, abs=0.02)


def test_lists_and_dicts_of_modules_learn_and_freeze_by_name(trained):
    tree = line({"type": "Branches", "freeze": ["ways.wide.*", "layers.0.bias"]})
    last, row = trained(tree)
    assert row["loss"] < 0.05
    tree["name"] = "short"
    tree["trainer"] |= {"epochs": 1, "save_period": 1}
    first, _ = trained(tree)
    same = {name for name in first if torch.equal(first[name], last[name])}
    assert same == {"ways.wide.weight", "ways.wide.bias", "layers.0.bias"}


def test_layers_listed_in_the_config_tell_tones_apart(trained):
    layers = [
        {"type": "Conv1d", "args": [1, 8, 9]},
        {"type": "ReLU"},
        {"type": "AdaptiveMaxPool1d", "args": [1]},
        {"type": "Flatten"},
        {"type": "Linear", "args": [8, 2]},
    ]
    tree = line({"type": "Sequential", "args": layers})
    tree |= {"dataset": "Tones", "loss": "cross_entropy", "metrics": ["accuracy"]}
    tree["trainer"]["epochs"] = 20
    _, row = trained(tree)
    assert row["accuracy"] > 0.95
