"""Cross-validation: which samples a fold holds back, and a config trained on each of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import train
from base.config.check import load_config
from trainer.folds.__main__ import app
from trainer.folds.folds import fold_table, split_key

pytestmark = pytest.mark.usefixtures("core_writers_only")


@pytest.fixture
def cross_validate(tmp_path, tree):
    """A function that runs `python -m trainer.folds -c TREE ...` and returns the result."""
    tree["trainer"] |= {"epochs": 2, "accumulate": 1}
    tree["logger"] = {"tensorboard": False}
    tree["callbacks"] = []

    def run(*arguments, tree=tree):
        path = tmp_path / "tree.yaml"
        path.write_text(yaml.safe_dump(tree))
        return CliRunner().invoke(app, ["-c", str(path), *arguments])

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- the command --------------------------------------------------------------------------------


def test_each_fold_is_a_run_and_the_table_has_their_best(cross_validate, tmp_path):
    result = cross_validate("--folds", "3", "--run-id", "cv")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "saved" / "blobs"
    *folds, mean, std = rows(folder / "cv-folds.csv")
    assert [row["fold"] for row in folds] == ["1", "2", "3"]
    for row in folds:
        logged = rows(folder / f"cv-fold{row['fold']}of3" / "metrics.csv")
        best = min(logged, key=lambda epoch: float(epoch["val_loss"]))
        assert {float(row[key]) == float(best[key]) for key in row if key != "fold"} == {True}
    assert (mean["fold"], std["fold"]) == ("mean", "std")
    losses = [float(row["val_loss"]) for row in folds]
    assert float(mean["val_loss"]) == pytest.approx(np.mean(losses))
    assert float(std["val_loss"]) == pytest.approx(np.std(losses, ddof=1))
    assert "val_accuracy" in result.output
    assert result.output.rstrip().endswith(str(folder / "cv-folds.csv"))


def test_a_fold_among_others_is_what_it_is_alone(cross_validate, tmp_path):
    cross_validate("--folds", "3", "--run-id", "cv")
    changes = ["data_loader.args.validation_split=2/3", "--run-id", "alone"]
    alone = CliRunner().invoke(train.app, ["-c", str(tmp_path / "tree.yaml"), *changes])
    assert alone.exit_code == 0, alone.output
    weights = [
        torch.load(tmp_path / "saved" / "blobs" / run / "checkpoints" / "checkpoint-epoch2.pth")
        for run in ("cv-fold2of3", "alone")
    ]
    for name, tensor in weights[0]["model"].items():
        assert torch.equal(tensor, weights[1]["model"][name])


def test_the_same_command_continues_what_was_stopped(cross_validate, tmp_path, tree, interrupt):
    tree["callbacks"] = ["Interrupter"]
    interrupt["epoch", 1] = "SIGTERM"
    stopped = cross_validate("--folds", "2", "--run-id", "cv")
    assert stopped.exit_code == 143
    assert "to continue after a stop: the same with --run-id cv" in stopped.output
    folder = tmp_path / "saved" / "blobs"
    assert [path.name for path in folder.iterdir()] == ["cv-fold1of2"]
    assert cross_validate("--folds", "2", "--run-id", "cv").exit_code == 0
    continued = (folder / "cv-folds.csv").read_text()
    again = cross_validate("--folds", "2", "--run-id", "cv")
    assert again.output.count("is finished after epoch 2") == 2
    assert (folder / "cv-folds.csv").read_text() == continued
    assert cross_validate("--folds", "2", "--run-id", "whole").exit_code == 0
    assert (folder / "whole-folds.csv").read_text() == continued


def test_without_a_monitor_the_last_epoch_counts(cross_validate, tmp_path, tree):
    tree["trainer"]["monitor"] = "off"
    assert cross_validate("--folds", "2", "--run-id", "cv").exit_code == 0
    folds = rows(tmp_path / "saved" / "blobs" / "cv-folds.csv")
    assert [row["epoch"] for row in folds] == ["2.0", "2.0", "2.0", "0.0"]


def test_without_an_id_the_runs_are_named_after_the_time(cross_validate, tmp_path):
    assert cross_validate("--folds", "2").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "saved" / "blobs").iterdir())
    time = names[0].removesuffix("-fold1of2")
    assert names == [f"{time}-fold1of2", f"{time}-fold2of2", f"{time}-folds.csv"]
    assert time[:2] == "20"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "1"], "Invalid value for '--folds'"),
        (["--folds", "45"], "44 samples cannot be cut into 45 folds"),
        (["--folds", "2", "valid_dataset=Blobs"], "found a valid_dataset"),
        (["--folds", "2", "--run-id", "../x"], "run id '../x-fold2of2': expected"),
        (["--folds", "2", "trainer.epochz=1"], "unknown key (did you mean 'epochs'?)"),
    ],
)
def test_what_cannot_be_ends_with_2_and_creates_nothing(
    cross_validate, tmp_path, arguments, message
):
    result = cross_validate(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "saved").exists()


def test_the_key_of_the_fold_is_found_by_position_too(load, tree):
    tree["data_loader"] = {"args": [4, True, 8]}
    assert split_key(load(tree)) == "data_loader.args.2"


def test_the_ancestors_loader_takes_folds(project_root):
    path = project_root / "configs" / "config.json"
    config = load_config(path, ["data_loader.args.validation_split=2/5"])
    assert config.data_loader.args["validation_split"] == "2/5"
    assert split_key(config) == "data_loader.args.validation_split"


def test_a_table_has_a_line_for_each_fold_then_mean_and_deviation():
    table = fold_table([{"epoch": 3, "loss": 1.0}, {"epoch": 5, "loss": None}, {"loss": 2.0}])
    assert list(table.index) == [1, 2, 3, "mean", "std"]
    assert table.loc["mean"].tolist() == [4, 1.5]
