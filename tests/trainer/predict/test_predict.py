"""Predictions for files are those that test.py makes of the same samples."""

import csv
from pathlib import Path
from string import ascii_letters

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST
from typer.testing import CliRunner

import test as test_command
import train as train_command
from base.data.batch_dataset import BatchDataset
from base.errors import DataError, UsageError
from base.registry import DATASETS
from trainer.evaluation import class_shares
from trainer.predict.__main__ import app
from trainer.predict.predict import ImageFiles, class_columns, number_columns, sample_columns

SHORT = ("trainer.epochs=1", "trainer.limit_batches=3", "name=short", "logger.tensorboard=false")
PROJECT = Path(train_command.__file__).parent


def predict(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def train(tmp_path_factory, turn_off_optional_writers):
    """A function that trains a shipped config for three batches on data of make_data.py.

    The test is left out where the project was made without one of them.
    """
    make_data = pytest.importorskip("make_data")
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        turn_off_optional_writers(patch)

        def run(name: str) -> Path:
            if not (PROJECT / "configs" / name).exists():
                pytest.skip(f"there is no {name}")
            for kind, config in make_data.CONFIGS.items():
                if config == name and not Path("data", kind).exists():
                    make_data.main(kind, Path("data"))
            path = folder / name
            if not path.exists():
                changes = [*SHORT, f"trainer.save_dir={path}"]
                if name == "folder.yaml":
                    changes.append("data_loader.args.num_workers=0")
                arguments = ["-c", str(PROJECT / "configs" / name), "--run-id", "a", *changes]
                result = CliRunner().invoke(train_command.app, arguments)
                assert result.exit_code == 0, result.output
            return path / "short" / "a"

        yield run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def evaluated(path: Path) -> list[dict[str, str]]:
    """What test.py makes of all the test data of a run."""
    arguments = ["-r", str(path), "trainer.limit_batches=null"]
    result = CliRunner().invoke(test_command.app, arguments)
    assert result.exit_code == 0, result.output
    return read(path / "test" / "predictions.csv")


def predicted(path: Path, source: Path, *arguments) -> list[dict[str, str]]:
    result = predict(path, source, *arguments)
    assert result.exit_code == 0, result.output
    return read(Path(result.output.split()[-1]))


def assert_same(found: list[dict], expected: list[dict], classes: list[str]) -> None:
    assert [row["prediction"] for row in found] == [
        classes[int(row["prediction"])] for row in expected
    ]
    assert [row["probability"] for row in found] == [row["confidence"] for row in expected]


def test_images_of_a_folder_are_predicted_as_they_are_tested(train):
    path = train("folder.yaml")
    found = predicted(path, Path("data/folder/test"))
    assert_same(found, evaluated(path), [str(number) for number in range(10)])
    assert len(found) == 360  # limit_batches is for training
    assert list(found[0])[:4] == ["path", "prediction", "probability", "probability_0"]
    assert found[0]["path"] == str(min(Path("data/folder/test").rglob("*.png")))
    assert (path / "predictions" / "test.csv").exists()


def test_a_table_is_scaled_as_the_training_rows_and_needs_no_target(train, tmp_path):
    path = train("csv.yaml")
    Path("data/table/train.csv").unlink(missing_ok=True)  # the run holds what is needed
    table = pd.read_csv("data/table/test.csv", dtype=str).drop(columns="cover")
    table.insert(0, "id", [f"{number:05}" for number in range(len(table))])
    table.to_csv(tmp_path / "new.csv", index=False)
    found = predicted(path, tmp_path / "new.csv", "--output", tmp_path / "out.csv")
    assert_same(found, evaluated(path), ["aspen", "pine", "spruce"])
    assert [row["id"] for row in found] == table["id"].tolist()  # 00001 stays 00001
    assert (tmp_path / "out.csv").exists()


def test_texts_are_read_in_the_words_of_training_and_need_no_label(train, tmp_path):
    path = train("text.yaml")
    Path("data/text/train.csv").unlink(missing_ok=True)  # the run holds what is needed
    table = pd.read_csv("data/text/test.csv").drop(columns="label")
    table.to_csv(tmp_path / "new.csv", index=False)
    found = predicted(path, tmp_path / "new.csv")
    assert_same(found, evaluated(path), ["bad", "good"])
    assert [row["text"] for row in found] == table["text"].tolist()


@DATASETS.register()
class Tiles(TensorDataset):
    """Images (1, 6, 6) of bytes as floats, three classes of them."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 256, (24, 1, 6, 6), generator=generator)
        super().__init__(pixels / 255, torch.arange(24) % 3)


@pytest.fixture
def run(start, tree) -> Path:
    """A run on tiles."""
    tree |= {"dataset": "Tiles", "test_dataset": {"type": "Tiles", "args": {"seed": 1}}}
    return start(tree, "trainer.epochs=1")


@pytest.fixture
def files(tmp_path):
    """The test tiles as grey PNGs, in a folder of their own."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, (image, _) in enumerate(Tiles(seed=1)):
        pixels = (image[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def test_images_are_read_as_the_tensors_that_a_dataset_gives(run, files):
    expected = evaluated(run)
    found = predicted(run, files)
    assert [row["prediction"] for row in found] == [row["prediction"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert float(row["probability"]) == pytest.approx(float(other["confidence"]), abs=1e-5)
    (single,) = predicted(run, files / "03.png")
    assert single["prediction"] == found[3]["prediction"]
    assert {path.name for path in (run / "predictions").iterdir()} == {"images.csv", "03.csv"}


def test_without_test_data_the_validation_data_tell_what_images_are(run, files):
    result = predict(run, files, "test_dataset=null")
    assert result.exit_code == 0, result.output
    assert "no test data, so others are looked at" in result.output


def damaged(folder):
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:40])
    return folder


def of_another_size(folder):
    Image.new("RGB", (9, 7)).save(folder / "zz.png")
    return folder


def empty(folder):
    for file in folder.iterdir():
        file.unlink()
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "05.png: not an image that can be read"),
        (of_another_size, "zz.png: becomes an input of [1, 7, 9], the run's are [1, 6"),
        (empty, "no image below it"),
        (lambda folder: folder / "none", "none: no such file or folder"),
    ],
)
def test_what_cannot_be_read_is_named_and_nothing_is_written(run, files, change, message):
    result = predict(run, change(files))
    assert result.exit_code == 3
    assert message in result.output
    assert not (run / "predictions").exists()


def test_a_column_named_as_predictions_are_is_kept_under_another_name(train, tmp_path):
    path = train("text.yaml")
    table = pd.read_csv("data/text/test.csv")
    table.assign(prediction=1).to_csv(tmp_path / "new.csv", index=False)
    rows = predicted(path, tmp_path / "new.csv")
    assert {row["prediction_given"] for row in rows} == {"1"}
    assert {row["prediction"] for row in rows} <= {"bad", "good"}


# --- datasets of one's own, and torchvision's -----------------------------------------------------


@DATASETS.register()
class Lines(TensorDataset):
    """Points on a line, read from files of one number a row."""

    def __init__(self) -> None:
        x = torch.linspace(-1, 1, 32)[:, None]
        super().__init__(x, 2 * x + 1)

    def for_prediction(self, path: Path) -> list:
        return [(torch.tensor([float(line)]), 0) for line in path.read_text().split()]


def test_a_dataset_of_ones_own_reads_its_files(tree, start, tmp_path, monkeypatch):
    changes = {
        "dataset": "Lines",
        "model": {"type": "Linear", "args": [1, 1]},
        "loss": "mse_loss",
        "metrics": [],
    }
    path = start(tree | changes, "trainer.epochs=1")
    (tmp_path / "new.txt").write_text("0\n1\n")
    found = predicted(path, tmp_path / "new.txt")
    assert [list(row) for row in found] == [["sample", "prediction"]] * 2
    assert [row["sample"] for row in found] == ["0", "1"]
    named = [(torch.tensor([0.0]), "first"), (torch.tensor([1.0]), "second")]
    monkeypatch.setattr(Lines, "for_prediction", lambda self, path: named)
    assert [row["path"] for row in predicted(path, tmp_path / "new.txt")] == ["first", "second"]
    monkeypatch.setattr(Lines, "for_prediction", lambda self, path: [torch.tensor([0.0])])
    result = predict(path, tmp_path / "new.txt")
    assert "for_prediction(path) must give (input, name) each" in result.output
    monkeypatch.delattr(Lines, "for_prediction")
    result = predict(path, tmp_path / "new.txt")
    assert result.exit_code == 2, result.output
    assert "write it a method for_prediction(path)" in result.output


def test_a_transform_inside_a_dataset_is_applied_once(tmp_path, write_small_mnist):
    from torchvision.transforms import v2

    write_small_mnist(tmp_path)
    steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    dataset = MNIST(tmp_path, train=False, transform=v2.Compose(steps))
    image = Image.fromarray(np.asarray(dataset.data[7]))
    image.convert("RGB").save(tmp_path / "seven.png")
    known = BatchDataset(dataset, torch.arange(2), seed=0, collate_fn=list)
    files = ImageFiles(tmp_path / "seven.png", known, dataset[0][0].shape)
    assert torch.equal(files[0][0], dataset[7][0])


def test_values_of_an_unknown_scale_are_refused(tmp_path):
    dataset = TensorDataset(torch.full((2, 1, 8, 8), -0.5), torch.zeros(2))
    known = BatchDataset(dataset, torch.arange(2), seed=0, collate_fn=list)
    with pytest.raises(UsageError, match="TensorDataset gives no PIL images and no tensors"):
        ImageFiles(tmp_path / "a.png", known, (1, 8, 8))


def test_an_empty_folder_names_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"no image below it, of \.jpg"):
        ImageFiles(tmp_path, None, ())


# --- columns --------------------------------------------------------------------------------------


def test_scores_log_probabilities_and_probabilities_give_the_same_shares():
    scores = torch.tensor([[1.0, 3.0, -2.0], [0.1, 0.2, 0.3]])
    expected = scores.softmax(dim=1)
    for output in (scores, scores.log_softmax(dim=1), expected):
        assert torch.allclose(class_shares(output), expected)


def test_many_classes_get_no_column_each():
    assert list(class_columns(torch.rand(2, 21), ascii_letters)) == ["prediction", "probability"]
    assert len(class_columns(torch.rand(2, 20), ascii_letters)) == 22


def test_a_table_keeps_its_rows_in_order_whatever_they_were_called(monkeypatch):
    table = pd.DataFrame({"id": ["a", "b"]}, index=[7, 3])  # as a filtered one was written
    monkeypatch.setattr(pd, "read_parquet", lambda path: table)
    assert sample_columns(Path("x.parquet"), 2, is_named=False).index.tolist() == [0, 1]


def test_numbers_get_a_column_for_each_output():
    assert list(number_columns(torch.rand(4, 1))) == ["prediction"]
    assert list(number_columns(torch.rand(4))) == ["prediction"]
    assert list(number_columns(torch.rand(4, 2))) == ["prediction_0", "prediction_1"]
