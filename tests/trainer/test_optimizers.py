"""Every optimizer of torch steps from a config, and goes on after a resume as if nothing was."""

import pytest
import torch
from torch import Tensor, nn

from base.checkpoint.checkpoints import read_checkpoint, write_checkpoint
from base.config.check import check_config
from base.config.source import Source
from base.registry import OPTIMIZERS
from trainer import parts

OF_TORCH = sorted(n for n, source in OPTIMIZERS.names().items() if source == "torch.optim")
ARGS = {"LBFGS": {"lr": 0.5, "max_iter": 3}, "SGD": {"lr": 0.1, "momentum": 0.9}, "ASGD": {"t0": 1}}
STEPS = 3


class Signs(nn.Module):
    """Scores (B, 3) of the signs of an input, from an embedding with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(2, 3, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding((x > 0).long())


def model_for(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "SparseAdam":
        return Signs()
    if kind == "Muon":  # takes matrices only
        return nn.Sequential(nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False))
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


@pytest.fixture
def trainer_of(make_trainer, points):
    """Return a function that makes a trainer of a new model and an optimizer from a config."""

    def make(kind, epochs):
        optimizer = {"type": kind, "args": ARGS.get(kind, {})}
        tree = {"name": "test", "model": "Linear", "loss": "mse_loss", "optimizer": optimizer}
        tree |= {"dataset": "Blobs", "model": {"type": "Linear", "args": [5, 3]}}
        config = check_config(Source(tree))
        model = model_for(kind)
        return make_trainer(
            model,
            points,
            optimizer=parts.build_optimizer(config, model, None),
            epochs=epochs,
            len_epoch=STEPS,
        )

    return make


@pytest.mark.parametrize("kind", OF_TORCH)
def test_an_optimizer_steps_and_resumes(trainer_of, fit, kind, tmp_path):
    whole = trainer_of(kind, epochs=2)
    before = [parameter.clone() for parameter in whole.parameters]
    fit(whole)
    assert whole.step == 2 * STEPS
    assert not any(map(torch.equal, before, whole.parameters))

    first = trainer_of(kind, epochs=1)
    fit(first)
    write_checkpoint(tmp_path / "x.pth", first.state_dict())
    rest = trainer_of(kind, epochs=2)
    rest.load_state_dict(read_checkpoint(tmp_path / "x.pth"))
    fit(rest)
    assert all(map(torch.equal, rest.parameters, whole.parameters))
    assert rest.row["loss"] == whole.row["loss"]


def test_the_list_of_torch_is_whole():
    assert {"Adafactor", "LBFGS", "Muon", "SparseAdam"} < {*OF_TORCH}
    classes = {name for name, thing in vars(torch.optim).items() if isinstance(thing, type)}
    assert {*OF_TORCH} == classes - {"Optimizer"}
