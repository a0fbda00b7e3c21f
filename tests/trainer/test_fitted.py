"""What a dataset learned of the training data is kept in the run, whatever becomes of the file."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import test as test_command
from base.errors import ConfigError, DataError
from base.registry import DATASETS
from trainer.data import build_data, build_test_data
from trainer.export.__main__ import app as export
from trainer.predict.__main__ import app as predict

TABLE = {
    "dataset": {"type": "TableDataset", "args": {"path": "train.csv", "target": "y"}},
    "test_dataset": {"type": "TableDataset", "args": {"path": "test.csv", "target": "y"}},
    "model": {"type": "Linear", "args": [2, 2]},
}
TEXT = {
    "dataset": {"type": "TextDataset", "args": {"path": "train.csv", "min_count": 1}},
    "test_dataset": {"type": "TextDataset", "args": {"path": "test.csv"}},
    "data_loader": {
        "args": {"batch_size": 4, "validation_split": 8, "collate_fn": {"type": "pad"}}
    },
    "model": {"type": "TextClassifier", "args": {"num_words": 10_000}},
}


@pytest.fixture(params=["table", "text"])
def data(request, tree, tmp_path, monkeypatch):
    """A config over files in the working folder, and what changing the training's comes to."""
    monkeypatch.chdir(tmp_path)
    numbers = range(40)
    if request.param == "table":
        own, change = TABLE, "mean.a is"
        table = pd.DataFrame({"a": numbers, "b": [n % 7 for n in numbers]})
        table["y"] = ["high" if n > 20 else "low" for n in numbers]
        changed = table.assign(a=table["a"] * 3 + 100)
    else:
        own, change = TEXT, "ids.film is 3, was 2"
        table = pd.DataFrame({"text": [f"film {'bad' if n % 3 else 'good'}" for n in numbers]})
        table["label"] = [text.split()[1] for text in table["text"]]
        changed = table.assign(text="zebra zebra " + table["text"])
    table.to_csv("train.csv", index=False)
    table[::3].to_csv("test.csv", index=False)
    changed.to_csv("changed.csv", index=False)
    return {**tree, "metrics": ["accuracy"], "callbacks": [], "lr_scheduler": None, **own}, change


def call(*arguments):
    return CliRunner().invoke(test_command.app, [str(argument) for argument in arguments])


def results(run: Path) -> tuple[str, str, str]:
    """What test.py finds, predicts and exports."""
    for app, *arguments in (
        (test_command.app, "-r", run),
        (predict, run, "test.csv"),
        (export, run, "--format", "safetensors"),
    ):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        assert "others are looked at" not in result.output
    metrics, predictions = run / "test" / "predictions.csv", run / "predictions" / "test.csv"
    with safe_open(run / "export" / "model.safetensors", "pt") as file:
        classes = file.metadata()["classes"]
    return metrics.read_text(), predictions.read_text(), classes


@pytest.mark.parametrize("fate", ["changed", "gone"])
def test_a_run_is_tested_and_predicts_as_before_whatever_becomes_of_the_training_file(
    data, start, fate
):
    run = start(data[0], "trainer.epochs=1")
    before = results(run)
    shutil.move("changed.csv", "train.csv") if fate == "changed" else Path("train.csv").unlink()
    assert results(run) == before
    assert len(json.loads(before[2])) == 2


def test_a_run_is_not_continued_on_changed_data(data, start, resume):
    tree, change = data
    run = start(tree, "trainer.epochs=2")
    content = Path("train.csv").read_bytes()
    shutil.copy("changed.csv", "train.csv")
    with pytest.raises(DataError) as caught:
        resume(run, "trainer.epochs=3")
    remedy = "put the old data back, or start a new run"
    message = f"train.csv is not what the run was trained on; {remedy}: {change}"
    assert str(caught.value).startswith(message)
    Path("train.csv").write_bytes(content)
    assert resume(run, "trainer.epochs=3")["epochs"] == 3


def test_test_data_is_not_read_by_what_it_has_itself(data, load):
    message = "test_dataset: nothing says what was learned of the training data"
    with pytest.raises(ConfigError, match=message):
        build_test_data(load(data[0]), torch.device("cpu"))


@pytest.mark.parametrize("data", ["table"], indirect=True)
def test_each_fold_keeps_the_statistics_of_its_own_rows(data, load):
    tree, means = data[0], []
    for fold in ("1/2", "2/2"):
        config = load(tree, f"data_loader.args.validation_split={fold}")
        loader, _ = build_data(config, torch.device("cpu"))
        rows = pd.read_csv("train.csv")["a"][loader.dataset.indices.numpy()]
        assert loader.fitted["mean"]["a"] == pytest.approx(rows.mean())
        means.append(rows.mean())
    assert means[0] != means[1]


def test_validation_data_of_its_own_is_read_as_the_training_data(data, load):
    tree, _ = data
    tree = {**tree, "valid_dataset": tree["test_dataset"]}
    loader, valid_loader = build_data(load(tree), torch.device("cpu"))
    assert valid_loader.fitted is loader.fitted
    assert valid_loader.num_samples == 14


def test_a_config_cannot_say_what_was_learned(data, load):
    with pytest.raises(ConfigError, match="gets 'fitted' from the project; remove it"):
        load(data[0], "dataset.args.fitted={}")


@DATASETS.register()
class Centred(TensorDataset):
    """A dataset of one's own that learns the mean of its training samples."""

    offset = 0.0

    def __init__(self, *, fitted=None):
        self.x, self.fitted = torch.arange(20.0)[:, None] + self.offset, fitted or {}
        super().__init__(self.x, torch.arange(20) % 2)

    def fit_to(self, indices):
        self.fitted = self.fitted or {"mean": self.x[indices].mean(dim=0)}
        self.tensors = (self.x - self.fitted["mean"], self.tensors[1])


def test_a_dataset_of_ones_own_gets_back_what_it_learned(tree, start, resume, monkeypatch):
    own = {"dataset": "Centred", "test_dataset": "Centred", "callbacks": [], "metrics": []}
    model = {"type": "Linear", "args": [1, 2]}
    run = start(tree | own | {"model": model, "lr_scheduler": None}, "trainer.epochs=1")
    found = []
    monkeypatch.setattr(Centred, "fit_to", lambda self, indices: found.append(self.fitted))
    assert call("-r", run).exit_code == 0
    assert found[0]["mean"].shape == (1,)
    monkeypatch.undo()
    monkeypatch.setattr(Centred, "offset", 1.0)
    message = r"Centred is not what the run was trained on; .*: mean\.0 is .*, was "
    with pytest.raises(DataError, match=message):
        resume(run, "trainer.epochs=2")
