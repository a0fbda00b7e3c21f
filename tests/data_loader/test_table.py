"""Tables as datasets: which columns, which statistics, and what is said of a bad file."""

import re

import numpy as np
import pytest
import torch

from base import BaseDataLoader
from base.errors import DataError
from data_loader.table import TableDataset


@pytest.fixture
def write(tmp_path):
    """A function that writes a CSV and returns its path."""

    def write_csv(*lines, name="table.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write_csv


@pytest.fixture
def trees(write):
    """Forty trees of which the later are much the higher, so that any part has means of its own."""
    lines = [f"{n**3},{n % 2},0.1,{'oak' if n % 3 else 'ash'}" for n in range(40)]
    return write("height,is_old,constant,kind", *lines)


def test_features_are_scaled_and_text_targets_are_sorted_classes(trees):
    table = TableDataset(trees, "kind")
    inputs, targets = table.tensors
    assert table.features == ["height", "is_old", "constant"]
    assert table.classes == ["ash", "oak"]
    assert targets[:4].tolist() == [0, 1, 1, 0]
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    np.testing.assert_allclose(inputs[:, :2].mean(dim=0), 0, atol=1e-6)
    np.testing.assert_allclose(inputs[:, :2].std(dim=0, correction=0), 1, atol=1e-5)


def test_a_constant_column_is_0_though_its_mean_is_rounded(trees):
    assert TableDataset(trees, "kind").tensors[0][:, 2].eq(0).all()


def test_features_are_taken_in_the_order_they_are_named(trees):
    every, some = TableDataset(trees, "kind"), TableDataset(trees, "kind", ["is_old", "height"])
    assert torch.equal(some.tensors[0], every.tensors[0][:, [1, 0]])


@pytest.mark.parametrize("validation_split", [0.25, 10, "2/4"])
def test_statistics_are_those_of_the_rows_that_the_loader_does_not_hold_back(
    trees, validation_split
):
    table = TableDataset(trees, "kind")
    loader = BaseDataLoader(table, 8, validation_split=validation_split)
    training, held_back = loader.dataset.indices, loader.split_validation().dataset.indices
    heights = torch.arange(40.0, dtype=torch.float64) ** 3
    expected = (heights - heights[training].mean()) / heights[training].std(correction=0)
    np.testing.assert_allclose(table.tensors[0][:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(table.tensors[0][training, 0].mean(), 0, atol=1e-6)
    assert table.tensors[0][held_back, 0].mean().abs() > 1e-3


def test_batches_of_the_loader_have_these_statistics(trees):
    loader = BaseDataLoader(TableDataset(trees, "kind"), 40, validation_split=0.5)
    loader.prepare([], in_memory="auto", device=torch.device("cpu"), training=True)
    inputs, _ = next(loader.batches(0, 1))
    np.testing.assert_allclose(inputs[:, :2].mean(dim=0), 0, atol=1e-6)
    assert loader.dataset.is_batched


def test_test_data_is_read_just_as_the_training_data_was(trees, write):
    table = TableDataset(trees, "kind", ["height"])
    BaseDataLoader(table, 8, validation_split=0.5)
    path = write("other,height,kind", "9,8,oak", "9,1,oak", name="test.csv")
    test = TableDataset(path, "kind", fitted=table.fitted)
    assert (test.features, test.targets.tolist(), test.classes) == (
        ["height"],
        [1, 1],
        ["ash", "oak"],
    )
    assert test.tensors[0].tolist() == table.tensors[0][[2, 1]].tolist()
    BaseDataLoader(test, 1)  # its rows change nothing
    assert test.tensors[0].tolist() == table.tensors[0][[2, 1]].tolist()
    with pytest.raises(DataError, match=r"expected the features \['height'\], found \['other'\]"):
        TableDataset(path, "kind", ["other"], fitted=table.fitted)


def test_real_targets_are_for_regression_and_stay_as_they_are(write):
    table = TableDataset(write("x,y", "1,2.5", "2,3.5"), "y")
    inputs, target = table[1]
    assert (inputs.tolist(), target.tolist(), target.dtype) == ([1], [3.5], torch.float32)
    model = torch.nn.Linear(1, 1)
    assert model(table.tensors[0]).shape == table.targets.shape


def test_whole_numbers_are_classes_unless_told_otherwise(write):
    path = write("x,y", "1,7", "2,3", "3,7")
    assert TableDataset(path, "y").classes == ["3", "7"]
    assert TableDataset(path, "y").targets.tolist() == [1, 0, 1]
    regression = TableDataset(path, "y", task="regression")
    assert (regression.targets.tolist(), regression.classes) == ([[7.0], [3.0], [7.0]], [])


def test_true_and_false_are_numbers_as_features_and_classes_as_targets(write):
    table = TableDataset(write("x,y", "true,false", "false,true"), "y")
    assert table.tensors[0].tolist() == [[1], [-1]]
    assert table.classes == ["False", "True"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b,y", "1,2,u", "3,,v"], "row 3, column 'b': expected a number, found nan"),
        (["a,b,y", "1,2,u", "3,inf,v"], "row 3, column 'b': expected a number, found inf"),
        (["a,b,y", "1,red,u", "3,4,v"], "row 2, column 'b': expected a number, found 'red'"),
        (
            ["a,b,y", "1,2,u", "3,4,"],
            "row 3, column 'y': expected one of the classes ['u']",
        ),
        (["a,b,y", "1,2,0.5", "3,4,"], "row 3, column 'y': expected a number, found nan"),
        (["a,b,z", "1,2,u"], "no column 'y'; it has a, b, z"),
        (["a,b,yy", "1,2,u"], "no column 'y' (did you mean 'yy'?)"),
        (["y", "u"], "expected features beside the target, found []"),
        (["a,y", "1,2,u", "3,4,v"], "row 2: more fields than columns; a comma in a text needs"),
        (["a,b", "1,2", "1,2,3,4"], "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_by_name_row_and_column(write, lines, message):
    path = write(*lines)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        TableDataset(path, "y")
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_without_rows_has_no_samples(write):
    with pytest.raises(DataError, match="TableDataset has no samples"):
        BaseDataLoader(TableDataset(write("a,b,y"), "y"))


def test_an_unknown_feature_is_named_with_the_nearest(trees):
    with pytest.raises(DataError, match=r"no column 'heigt' \(did you mean 'height'\?\)"):
        TableDataset(trees, "kind", ["heigt"])
    with pytest.raises(DataError, match="expected features beside the target, found"):
        TableDataset(trees, "kind", ["kind"])


def test_a_class_that_training_has_not_is_named_with_its_row(trees, write):
    path = write("height,is_old,constant,kind", "1,0,0.1,oak", "1,0,0.1,elm", name="test.csv")
    message = "row 3, column 'kind': expected one of the classes ['ash', 'oak'], found 'elm'"
    with pytest.raises(DataError, match=re.escape(f"{path}: {message}")):
        TableDataset(path, "kind", fitted=TableDataset(trees, "kind").fitted)


def test_a_missing_file_of_the_example_alone_says_how_that_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read: No such .*: python make_data.py table"):
        TableDataset("data/table/train.csv", "y")
    with pytest.raises(DataError, match=r"none.csv: cannot be read: .* directory$"):
        TableDataset("data/none.csv", "y")


def test_parquet_is_read_where_pyarrow_is_and_else_named(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "table.parquet"
    try:
        pandas.DataFrame({"x": [1.0, 2.0], "y": ["u", "v"]}).to_parquet(path)
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(DataError, match="pyarrow"):
            TableDataset(str(path), "y")
    else:
        assert TableDataset(str(path), "y").tensors[0].tolist() == [[-1], [1]]
