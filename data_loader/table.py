"""Tables: the rows of a CSV or Parquet file as samples."""

import logging
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


class TableDataset(TensorDataset):
    """Rows of a table as (inputs (F,) float32, target): a class (int64), or a number (1,) float32.

    Inputs are the columns `features`, by default all but `target`, each of mean 0 and deviation 1
    over the training rows; one that is constant there is 0. The training rows are those that the
    loader does not hold back.

    With `task` "auto" text, true or false and whole numbers are classes, `classes` being the
    sorted values of the training's file; other numbers are for regression, and stay as they are.

    Without `fitted` this is learned here, as of training data; other data is given the training's.

    In errors rows are numbered as a spreadsheet does it: the header of a CSV is row 1.

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
        table = _read(Path(path))
        self.path, self._is_training = path, fitted is None
        if fitted is None:
            classes = _classes(table, target, task)
            features = [c for c in table.columns if c != target] if features is None else features
            if not features or target in features:
                raise DataError(f"{path}: expected features beside the target, found {features}")
            fitted = {"classes": classes, **_statistics(_numbers(table, features), features)}
        self.fitted, self.features = fitted, [*fitted["mean"]]
        if features not in (None, self.features):
            raise DataError(f"{path}: expected the features {self.features}, found {features}")
        self.classes = [str(value) for value in fitted["classes"]]
        self.targets = (
            _class_numbers(table, target, fitted["classes"])
            if self.classes
            else torch.from_numpy(_numbers(table, [target])).float()
        )
        self._raw = _numbers(table, self.features)  # (N, F) float64
        super().__init__(self._scaled(self._raw), self.targets)

    def fit_to(self, indices: Tensor) -> None:
        """Take the training rows (M,) among these, as the loader chose them, for the statistics."""
        if self._is_training:
            self.fitted |= _statistics(self._raw[indices.numpy()], self.features)
            self.tensors = (self._scaled(self._raw), self.targets)

    def for_prediction(self, path: Path) -> TensorDataset:
        """Return the rows of another file, scaled as these are; they need no target."""
        inputs = self._scaled(_numbers(_read(path), self.features))
        return TensorDataset(inputs, torch.arange(len(inputs)))

    def _scaled(self, rows: np.ndarray) -> Tensor:
        mean, scale = ([*self.fitted[key].values()] for key in ("mean", "scale"))
        return torch.from_numpy((rows - mean) / scale).float()


def _classes(table: "pd.DataFrame", target: str, task: str) -> list[Any]:
    """Return the sorted values of the target, none for regression."""
    found = _column(table, target)
    if task == "regression" or (task == "auto" and found.dtype.kind == "f"):
        return []
    values = sorted(found.dropna().unique().tolist())
    if len(values) > MANY_CLASSES:
        path, hint = table.attrs["path"], "for a number set task: regression"
        log.warning("%s: %r is read as %d classes; %s", path, target, len(values), hint)
    return values


def _statistics(rows: np.ndarray, names: list[str]) -> dict[str, dict[str, float]]:
    """Return the mean and the deviation of each column, infinite where it is constant."""
    is_constant = rows.max(axis=0) == rows.min(axis=0)  # whose std need not be 0 exactly
    scale = np.where(is_constant, np.inf, rows.std(axis=0))
    found = {"mean": rows.mean(axis=0), "scale": scale}
    return {key: dict(zip(names, found[key].tolist(), strict=True)) for key in found}


def _read(path: Path) -> "pd.DataFrame":
    """Read a CSV, or a Parquet file, which needs pyarrow; its errors name `path` and the row."""
    import pandas as pd

    is_parquet = path.suffix in (".parquet", ".pq")
    try:
        table = pd.read_parquet(path) if is_parquet else pd.read_csv(path, low_memory=False)
    except FileNotFoundError:
        is_example = path.parent == Path("data/table")
        hint = "; the example data is written by: python make_data.py table" if is_example else ""
        raise DataError(f"{path}: no such file{hint}") from None
    except (OSError, ValueError, ImportError) as error:
        cause = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read: {cause}") from error
    if table.empty:
        raise DataError(f"{path}: has no rows")
    first = 1 if is_parquet else 2
    table.index = pd.RangeIndex(first, first + len(table))
    table.attrs["path"] = str(path)
    return table


def _column(table: "pd.DataFrame", name: str) -> "pd.Series":
    if name not in table.columns:
        known = [str(other) for other in table.columns]
        hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
        raise DataError(f"{table.attrs['path']}: no column {name!r}{hint}")
    return table[name]


def _numbers(table: "pd.DataFrame", names: list[str]) -> np.ndarray:
    """Return columns of finite numbers, (N, F) float64."""
    import pandas as pd

    found = np.empty((len(table), len(names)))
    for place, name in enumerate(names):
        values = _column(table, name)
        found[:, place] = pd.to_numeric(values, errors="coerce")
        is_wrong = ~np.isfinite(found[:, place])
        if is_wrong.any():
            raise _wrong(values, is_wrong, table, "a number")
    return found


def _class_numbers(table: "pd.DataFrame", name: str, classes: list) -> Tensor:
    """Return the targets (N,) int64 as places among the classes."""
    import pandas as pd

    values = _column(table, name)
    found = pd.Index(classes).get_indexer(values)
    if (found < 0).any():
        known = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
        raise _wrong(values, found < 0, table, f"one of the classes {known}")
    return torch.from_numpy(found).long()


def _wrong(
    values: "pd.Series", is_wrong: np.ndarray, table: "pd.DataFrame", expected: str
) -> DataError:
    place = is_wrong.argmax()
    [value] = values.iloc[[place]].tolist()  # as a plain number or text
    found = "none" if values.isna().iloc[place] else repr(value)
    where = f"{table.attrs['path']}: row {values.index[place]}, column {values.name!r}"
    return DataError(f"{where}: expected {expected}, found {found}")
