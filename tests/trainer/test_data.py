"""From the data sections of a config to loaders, and what a run decided about them before."""

import json

import pytest
import torch
from torch.utils.data import TensorDataset

from base.data import in_memory
from base.errors import ConfigError, DataError
from base.registry import DATASETS
from trainer.data import build_data

CPU = torch.device("cpu")


@DATASETS.register()
class Points(TensorDataset):
    """Ten numbers; `draws` makes its constructor seed torch, as careless code does."""

    deterministic = True

    def __init__(self, draws: bool = False, root: str = "") -> None:
        if draws:
            torch.manual_seed(7)
        if root:
            raise OSError(f"no space in\n{root}")
        super().__init__(torch.arange(10.0)[:, None], torch.arange(10) % 2)


@pytest.fixture
def points(load):
    """Return a function that loads a config over `Points`, some keys overridden."""
    tree = {
        "name": "points",
        "dataset": "Points",
        "data_loader": {"args": {"batch_size": 4, "validation_split": 3}},
        "model": {"type": "Linear", "args": [1, 2]},
        "loss": "cross_entropy",
        "optimizer": "SGD",
    }
    return lambda *overrides: load(tree, *overrides)


def test_what_a_run_decided_before_counts_where_its_config_leaves_it_open(points):
    config = points()
    before = config.model_dump()
    loader, valid_loader = build_data(config, CPU)
    assert (loader.in_memory, valid_loader.in_memory) == (True, True)
    loader, valid_loader = build_data(config, CPU, in_memory=False)
    assert (loader.in_memory, valid_loader.in_memory) == (False, False)
    assert config.model_dump() == before
    loader, _ = build_data(points("data_loader.in_memory=true"), CPU, in_memory=False)
    assert loader.in_memory


def test_a_continued_run_keeps_its_choice(tree, start, resume, monkeypatch, capsys):
    run = start({**tree, "lr_scheduler": None}, "trainer.epochs=1")
    state = torch.load(run / "checkpoints" / "checkpoint-epoch1.pth", weights_only=True)
    assert state["decided"] == {"in_memory": True}
    assert json.loads(state["config"])["data_loader"]["in_memory"] == "auto"
    monkeypatch.setattr(in_memory, "MEMORY_SHARE", 0)  # nothing would be kept unasked
    capsys.readouterr()
    resume(run, "trainer.epochs=2")
    assert "training data: 36 samples, kept in memory" in "".join(capsys.readouterr())


def test_split_and_order_follow_the_configs_seed_whatever_a_dataset_does(points):
    def order(*overrides):
        torch.manual_seed(1)
        loader, _ = build_data(points(*overrides), CPU)
        return [x.tolist() for x, _ in loader]

    assert order("seed=5") == order("seed=5", "dataset.args.draws=true")
    assert order("seed=5") != order("seed=6")
    with pytest.raises(ConfigError, match="gets 'seed' from the project; remove it"):
        points("data_loader.args.seed=1")


def test_data_that_cannot_be_read_is_told_in_one_line_with_its_folder(points):
    message = r"^the data of Points could not be fetched or read \(no space in here\); its files "
    with pytest.raises(DataError, match=message + "belong below here/$"):
        build_data(points("dataset.args.root=here"), CPU)
