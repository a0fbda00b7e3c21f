"""Which samples are for training and which are held back for validation."""

import math
import re

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from base.data.sample_rng import derive_seed
from base.errors import DataError, UsageError


def split_indices(
    dataset: Dataset, validation_split: float | str, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the sorted indices of training and of validation samples, (N,) int64 each.

    A fold "i/k" holds back the i-th of k parts of the seed's permutation, a share or a count its
    beginning.

    Raises:
        DataError: the dataset has no length, is empty, or the split leaves nothing to train on.
        UsageError: there is no such fold.
    """
    name = type(dataset).__name__
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        need = "a resumable order needs both: give it __len__ and __getitem__"
        raise DataError(f"{name} has no length and no index; {need}, or write its samples to files")
    if (total := len(dataset)) == 0:
        raise DataError(f"{name} has no samples")
    start, stop = _held_back(validation_split, total)
    if not 0 <= stop - start < total:
        split = f"a validation_split of {validation_split} leaves none to train on, or is below 0"
        raise DataError(f"{name} has {total} samples; {split}")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(derive_seed(seed)))
    training, validation = torch.cat([order[:start], order[stop:]]), order[start:stop]
    return training.sort().values, validation.sort().values


def _held_back(validation_split: float | str, total: int) -> tuple[int, int]:
    """Return where in the order of all samples those for validation start and stop."""
    if not isinstance(validation_split, str):
        is_share = isinstance(validation_split, float)
        return 0, math.floor(total * validation_split) if is_share else validation_split
    found = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", validation_split)
    fold, num_folds = map(int, found.groups()) if found else (0, 0)
    if not 1 <= fold <= num_folds:
        expected = "a share, a count, or a fold i/k such as 2/5, with i from 1 to k"
        raise UsageError(f"validation_split is {validation_split!r}, expected {expected}")
    if num_folds > total:
        raise UsageError(f"{total} samples cannot be cut into {num_folds} folds")
    return total * (fold - 1) // num_folds, total * fold // num_folds
