"""What a dataset learned of the training data is kept in the run, whatever becomes of the file."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import test as test_command
from base.errors import ConfigError, DataError
from base.registry import DATASETS
from trainer.data import build_data

CPU = torch.device("cpu")


@DATASETS.register()
class NumberFile(TensorDataset):
    """Numbers of a file, a line each, less their mean over the training samples; class: parity."""

    deterministic = True

    def __init__(self, path: str, fitted=None) -> None:
        numbers = [float(line) for line in Path(path).read_text().split()]
        self.path, self.fitted = path, fitted or {}
        self.numbers = torch.tensor(numbers)[:, None]
        super().__init__(self.numbers, self.numbers[:, 0].long() % 2)
        if fitted:
            self.center()

    def fit_to(self, indices: torch.Tensor) -> None:
        if not self.fitted:
            self.fitted = {"mean": self.numbers[indices].mean(dim=0), "classes": ["even", "odd"]}
            self.center()

    def center(self) -> None:
        self.tensors = (self.numbers - self.fitted["mean"], self.tensors[1])


def write(name: str, numbers: range) -> None:
    Path(name).write_text("\n".join(map(str, numbers)))


@pytest.fixture
def numbers(tree, tmp_path, monkeypatch):
    """A config over files of numbers in the working folder."""
    monkeypatch.chdir(tmp_path)
    write("train.txt", range(40))
    write("test.txt", range(0, 40, 3))
    write("changed.txt", range(100, 140))
    return {
        **tree,
        "dataset": {"type": "NumberFile", "args": {"path": "train.txt"}},
        "test_dataset": {"type": "NumberFile", "args": {"path": "test.txt"}},
        "model": {"type": "Linear", "args": [1, 2]},
        "metrics": ["accuracy"],
        "callbacks": [],
        "lr_scheduler": None,
    }


def scores_of(run: Path) -> str:
    """What test.py finds of a run."""
    result = CliRunner().invoke(test_command.app, ["-r", str(run)])
    assert result.exit_code == 0, result.output
    return (run / "test" / "metrics.json").read_text()


@pytest.mark.parametrize("fate", ["changed", "gone"])
def test_a_run_is_tested_as_before_whatever_becomes_of_the_training_file(numbers, start, fate):
    run = start(numbers, "trainer.epochs=1")
    before = scores_of(run)
    shutil.move("changed.txt", "train.txt") if fate == "changed" else Path("train.txt").unlink()
    assert scores_of(run) == before


def test_a_run_is_not_continued_on_changed_data(numbers, start, resume):
    run = start(numbers, "trainer.epochs=2")
    shutil.copy("changed.txt", "train.txt")
    with pytest.raises(DataError) as caught:
        resume(run, "trainer.epochs=3")
    remedy = "put the old data back, or start a new run"
    message = f"train.txt is not what the run was trained on; {remedy}: mean.0 is "
    assert str(caught.value).startswith(message)
    write("train.txt", range(40))
    assert resume(run, "trainer.epochs=3")["epochs"] == 3


def test_each_fold_keeps_the_statistics_of_its_own_samples(numbers, load):
    means = []
    for fold in ("1/2", "2/2"):
        config = load(numbers, f"data_loader.args.validation_split={fold}")
        loader, _ = build_data(config, CPU)
        means.append(loader.dataset.indices.float().mean())
        assert loader.fitted["mean"].item() == pytest.approx(means[-1].item())
    assert means[0] != means[1]


def test_validation_data_of_its_own_is_read_as_the_training_data(numbers, load):
    tree = {**numbers, "valid_dataset": numbers["test_dataset"]}
    loader, valid_loader = build_data(load(tree), CPU)
    assert valid_loader.fitted is loader.fitted
    first = valid_loader.dataset.dataset[0][0]
    assert torch.equal(first, -loader.fitted["mean"])
    assert valid_loader.num_samples == 14


def test_a_config_cannot_say_what_was_learned(numbers, load):
    with pytest.raises(ConfigError, match="gets 'fitted' from the project; remove it"):
        load(numbers, "dataset.args.fitted={}")
