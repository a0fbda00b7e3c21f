"""Tables: the rows of a CSV or Parquet file as samples."""

import logging
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from base.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("train")

MANY_CLASSES = 50  # more of them are rather numbers, whole ones
EXAMPLES = ("data/table", "data/text")  # where make_data.py writes


class TableDataset(TensorDataset):
    """Rows of a table as (inputs (F,) float32, target): a class (int64), or a number (1,) float32.

    Inputs are the columns `features`, by default all but `target`, each of mean 0 and deviation 1
    over the training rows; one that is constant there is 0. The training rows are those that the
    loader does not hold back.

    With `task` "auto" text, true or false and whole numbers are classes, `classes` being the
    sorted values of the training's file; other numbers are for regression, and stay as they are.

    Without `fitted` this is learned here, as of training data; other data is given the training's.

    Raises:
        DataError: a file cannot be read, has no such column, or a value is missing or of no use.
    """

    deterministic = True

    def __init__(
        self,
        path: str,
        target: str,
        features: list[str] | None = None,
        task: Literal["auto", "classification", "regression"] = "auto",
        fitted: dict[str, Any] | None = None,
    ) -> None:
        table = read_table(Path(path))
        self._is_training = fitted is None
        if fitted is None:
            found = select(table, [target])[target]
            is_regression = task == "regression" or (task == "auto" and found.dtype.kind == "f")
            classes = [] if is_regression else sorted(found.dropna().unique().tolist())
            if len(classes) > MANY_CLASSES:
                hint = "for a number set task: regression"
                log.warning("%s: %r is read as %d classes; %s", path, target, len(classes), hint)
            features = [c for c in table.columns if c != target] if features is None else features
            if not features or target in features:
                raise DataError(f"{path}: expected features beside the target, found {features}")
            fitted = {"classes": classes, **_statistics(_numbers(table, features))}
        self.fitted, self.features = fitted, [*fitted["mean"]]
        if features not in (None, self.features):
            raise DataError(f"{path}: expected the features {self.features}, found {features}")
        self.classes = [str(value) for value in fitted["classes"]]
        self._raw = _numbers(table, self.features)
        if self.classes:
            self.targets = class_numbers(table, target, fitted["classes"])
        else:
            self.targets = _tensor(_numbers(table, [target]))
        super().__init__(self._scaled(self._raw), self.targets)

    def fit_to(self, indices: Tensor) -> None:
        """Take the training rows (M,) among these, as the loader chose them, for the statistics."""
        if self._is_training:
            self.fitted |= _statistics(self._raw.iloc[indices.numpy()])
            self.tensors = (self._scaled(self._raw), self.targets)

    def for_prediction(self, path: Path) -> TensorDataset:
        """Return the rows of another file, scaled as these are; they need no target."""
        inputs = self._scaled(_numbers(read_table(path), self.features))
        return TensorDataset(inputs, torch.arange(len(inputs)))

    def _scaled(self, rows: "pd.DataFrame") -> Tensor:
        return _tensor((rows - self.fitted["mean"]) / self.fitted["scale"])


def read_table(path: Path, **csv_options: Any) -> "pd.DataFrame":
    """Read a CSV by pandas, or a Parquet file, which needs pyarrow.

    Rows are numbered as a spreadsheet does it: the first below the header is row 2.

    Raises:
        DataError: the file is missing or damaged.
    """
    import pandas as pd

    is_parquet = path.suffix in (".parquet", ".pq")
    try:
        if is_parquet:
            table = pd.read_parquet(path).reset_index(drop=True)
        else:
            table = pd.read_csv(path, low_memory=False, **csv_options)
    except (OSError, ValueError, ImportError) as error:
        cause = getattr(error, "strerror", None) or " ".join(str(error).split())
        if not path.exists() and str(path.parent) in EXAMPLES:
            cause += f"; the example is written by: python make_data.py {path.parent.name}"
        raise DataError(f"{path}: cannot be read: {cause}") from error
    if not table.index.equals(pd.RangeIndex(len(table))):  # pandas takes a field too many for one
        raise DataError(f"{path}: row 2: more fields than columns; a comma in a text needs quotes")
    table.index += 2
    table.attrs["path"] = path
    return table


def select(table: "pd.DataFrame", names: list[str]) -> "pd.DataFrame":
    """Return some columns, or raise a DataError with the nearest name where one is missing."""
    for name in names:
        if name not in table.columns:
            known = [*map(str, table.columns)]
            hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
            raise DataError(f"{table.attrs['path']}: no column {name!r}{hint}")
    return table[names]


def refuse(cells: "pd.DataFrame", is_wrong: np.ndarray, expected: str) -> None:
    """Raise a DataError that shows the first of the cells (N, F) of a table that `is_wrong`."""
    for row, column in np.argwhere(is_wrong):
        [value] = cells.iloc[[row], column].tolist()  # as a plain number or text
        place = f"row {cells.index[row]}, column {cells.columns[column]!r}"
        raise DataError(f"{cells.attrs['path']}: {place}: expected {expected}, found {value!r}")


def class_numbers(table: "pd.DataFrame", name: str, classes: list[Any]) -> Tensor:
    """Return a column as places among the classes, (N,) int64, or raise a DataError."""
    import pandas as pd

    column = select(table, [name])
    places = pd.Index(classes).get_indexer(column[name])
    refuse(column, places[:, None] < 0, f"one of the classes {reprlib.repr(classes)}")
    return torch.from_numpy(places).long()


def _numbers(table: "pd.DataFrame", names: list[str]) -> "pd.DataFrame":
    """Return columns of finite numbers, float64."""
    import pandas as pd

    cells = select(table, names)
    numbers = cells.apply(pd.to_numeric, errors="coerce").astype("float64")
    refuse(cells, ~np.isfinite(numbers.to_numpy()), "a number")
    return numbers


def _statistics(rows: "pd.DataFrame") -> dict[str, dict[str, float]]:
    """Return the mean and the deviation of each column, infinite where it is constant."""
    scale = rows.std(ddof=0).where(rows.max() > rows.min(), np.inf)  # that need not be 0 exactly
    return {"mean": rows.mean().to_dict(), "scale": scale.to_dict()}


def _tensor(rows: "pd.DataFrame") -> Tensor:
    return torch.tensor(rows.to_numpy(), dtype=torch.float32)
