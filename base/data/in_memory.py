"""Keep a loader's samples in memory: the one place that decides on it and reads them."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from base.data.batch_dataset import BatchDataset
from base.data.deterministic import is_deterministic, read_at_once, reads_files
from base.data.order import BatchIndices
from base.data.sample_rng import as_in_a_worker
from base.runtime import distributed
from base.runtime.device import free_memory

CHUNK = 128  # samples put into memory at once
MEMORY_SHARE = 0.25  # of what is free may be taken for a dataset unasked
progress = partial(tqdm, desc="reading data", leave=False, disable=None, delay=1)


def keep_in_memory(data: BatchDataset, in_memory: bool | str, device: torch.device) -> str:
    """Keep the samples as tensors, after their leading deterministic transforms, or say why not.

    `in_memory` True does so where it is possible, False never, "auto" where samples are known not
    to change, are no files, which workers decode better, and take a small share of the memory. They
    are on `device` if they fit there as easily and nothing is left to do for each sample.

    Returns:
        Why they are read anew in each epoch, "" if they are kept.
    """
    if in_memory is False:
        return "as configured"
    if data.collate_fn is not default_collate:
        return "they have a collate function of their own"
    is_known = is_deterministic(data.dataset) and not reads_files(data.dataset)
    if in_memory == "auto" and not is_known:
        return "it may draw at random or read files (else set `deterministic = True` on its class)"
    done = [*takewhile(is_deterministic, data.sample_transforms)]
    with as_in_a_worker():
        ends = _columns(data, np.array([0, len(data) - 1]), done)
        num_bytes = sum(column[0].nbytes for column in ends) * len(data)
        free = free_memory(torch.device("cpu")) / distributed.local_world_size()
        if num_bytes > free * (MEMORY_SHARE if in_memory == "auto" else 1):
            return f"they would take {num_bytes / 2**30:.1f} GiB of {free / 2**30:.1f} free"
        tensors = _read_all(data, done, ends) if ends else []
    if not tensors:
        return "they are not tuples of tensors or numbers of one shape"
    data.sample_transforms = data.sample_transforms[len(done) :]
    if not data.sample_transforms and num_bytes < free_memory(device) * MEMORY_SHARE:
        tensors = [tensor.to(device) for tensor in tensors]
    data.tensors = tensors
    return ""


def _read_all(
    data: BatchDataset, transforms: Sequence[Callable], ends: Sequence[Tensor]
) -> list[Tensor]:
    """Return the columns (N, ...) of all samples, none where one does not fit `ends`.

    They are read many at once where that gives the first and the last sample bitwise.
    """
    found = read_at_once(data.dataset, data.indices[[0, -1]], transforms) or []
    is_same = _kinds(found) == _kinds(ends) and all(map(torch.equal, found, ends))
    tensors = [column.new_empty(len(data), *column.shape[1:]) for column in ends]
    for start in progress(range(0, len(data), CHUNK)):
        positions = np.arange(start, min(start + CHUNK, len(data)))
        if is_same:
            columns = read_at_once(data.dataset, data.indices[positions], transforms)
        else:
            columns = _columns(data, positions, transforms)
        if _kinds(columns) != _kinds(ends):
            return []
        for tensor, column in zip(tensors, columns, strict=True):
            tensor[start : start + CHUNK] = column
    return tensors


def _columns(
    data: BatchDataset, positions: np.ndarray, transforms: Sequence[Callable]
) -> list[Tensor]:
    """Return samples as tensors (B, ...), none where they are no plain tuples of such."""
    samples = [*data.read(BatchIndices(0, positions), transforms)]
    if not all(type(sample) in (tuple, list) for sample in samples):
        return []
    try:
        columns = default_collate(samples)
    except (TypeError, RuntimeError, LookupError):
        return []
    return columns if all(isinstance(column, Tensor) for column in columns) else []


def _kinds(columns: Sequence[Tensor]) -> list[tuple[torch.dtype, torch.Size]]:
    return [(column.dtype, column.shape[1:]) for column in columns]
