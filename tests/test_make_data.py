"""The example data: there after one command, the same each time, and never written over."""

import csv

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import make_data


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that runs the command in a folder of its own and returns the result."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(make_data.app, [*arguments])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_is_written_with_the_next_command_for_each(make, tmp_path):
    result = make()
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"table", "text", "folder"}
    for config in ("csv", "text", "folder"):
        assert f"next: python train.py -c {config}.yaml" in result.output


def test_every_config_that_is_named_is_there(project_root):
    assert all((project_root / "configs" / name).exists() for name in make_data.CONFIGS.values())


def test_it_is_the_same_each_time(make, tmp_path):
    make("table")
    first = (tmp_path / "data/table/train.csv").read_bytes()
    (tmp_path / "data/table").rename(tmp_path / "before")
    make("table")
    assert (tmp_path / "data/table/train.csv").read_bytes() == first


def test_what_is_there_is_left_as_it_is(make, tmp_path):
    mine = tmp_path / "data" / "table" / "mine.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    result = make("table")
    assert result.exit_code == 0
    assert "data/table is there already: left as it is" in result.output
    assert [path.name for path in mine.parent.iterdir()] == ["mine.csv"]


def test_data_is_whole_or_absent(make, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make_data, "write_csv", fail)
    result = make("text")
    assert result.exit_code == 4
    assert "data/text: cannot be written: No space left on device" in result.output
    assert not list((tmp_path / "data").iterdir())


def test_the_table_has_columns_of_many_scales_and_three_classes(make, tmp_path):
    make("table")
    train, test = (rows(tmp_path / "data/table" / f"{part}.csv") for part in ("train", "test"))
    assert (len(train), len(test)) == (1500, 500)
    assert {row["cover"] for row in train} == {"aspen", "pine", "spruce"}
    assert {row["is_rocky"] for row in train} == {"0", "1"}
    deviations = [
        np.std([float(row[name]) for row in train]) for name in ("shade", "road_distance")
    ]
    assert deviations[1] > 1000 * deviations[0]
    line = [(float(row["x"]), float(row["y"])) for row in rows(tmp_path / "data/table/line.csv")]
    assert np.polyfit(*zip(*line, strict=True), 1) == pytest.approx([3, 2], abs=0.2)


def test_texts_are_told_apart_by_their_words(make, tmp_path):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    make("text")
    train, test = (rows(tmp_path / "data/text" / f"{part}.csv") for part in ("train", "test"))
    assert (len(train), len(test)) == (1000, 300)
    lengths = [len(row["text"].split()) for row in train]
    assert (min(lengths), max(lengths)) == (3, 40)
    words = CountVectorizer().fit([row["text"] for row in train])
    model = LogisticRegression(max_iter=1000)
    model.fit(words.transform([row["text"] for row in train]), [row["label"] for row in train])
    found = model.predict(words.transform([row["text"] for row in test]))
    assert np.mean(found == [row["label"] for row in test]) > 0.9


def test_images_lie_in_a_folder_for_each_class(make, tmp_path):
    make("folder")
    folder = tmp_path / "data" / "folder"
    for part, count in (("train", 1000), ("test", 360)):
        files = list((folder / part).rglob("*.png"))
        assert len(files) == count
        assert {file.parent.name for file in files} == {str(number) for number in range(10)}
    with Image.open(next((folder / "test" / "3").iterdir())) as image:
        assert (image.size, image.mode) == ((32, 32), "RGB")
        assert np.asarray(image).max() > 200
