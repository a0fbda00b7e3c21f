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
from base.data.deterministic import batch_reader, is_deterministic, reads_files
from base.data.order import BatchIndices
from base.data.sample_rng import as_in_a_worker
from base.runtime import distributed
from base.runtime.device import free_memory

CHUNK = 128  # samples put into memory at once
MEMORY_SHARE = 0.25  # of what is free may be taken for a dataset unasked
NO_COLUMNS = "they are not tuples of tensors or numbers of one shape"
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
        if ends is None:
            return NO_COLUMNS
        num_bytes = sum(column[0].nbytes for column in ends) * len(data)
        free = free_memory(torch.device("cpu")) / distributed.local_world_size()
        if num_bytes > free * (MEMORY_SHARE if in_memory == "auto" else 1):
            return f"they would take {num_bytes / 2**30:.1f} GiB of {free / 2**30:.1f} free"
        tensors = _read_all(data, done, ends)
    if tensors is None:
        return NO_COLUMNS
    data.sample_transforms = data.sample_transforms[len(done) :]
    if not data.sample_transforms and num_bytes < free_memory(device) * MEMORY_SHARE:
        tensors = [tensor.to(device) for tensor in tensors]
    data.tensors = tensors
    return ""


def _read_all(
    data: BatchDataset, transforms: Sequence[Callable], ends: Sequence[Tensor]
) -> list[Tensor] | None:
    """Return the columns (N, ...) of all samples, or None where one does not fit `ends`.

    They are read many at once where that gives the first and the last sample bitwise.
    """
    read, kinds = batch_reader(data.dataset, transforms), _kinds(ends)
    if read:
        found = read(data.indices[[0, -1]])
        read = read if _kinds(found) == kinds and all(map(torch.equal, found, ends)) else None
    tensors = [column.new_empty(len(data), *column.shape[1:]) for column in ends]
    for start in progress(range(0, len(data), CHUNK)):
        positions = np.arange(start, min(start + CHUNK, len(data)))
        columns = read(data.indices[positions]) if read else _columns(data, positions, transforms)
        if columns is None or _kinds(columns) != kinds:
            return None
        for tensor, column in zip(tensors, columns, strict=True):
            tensor[start : start + CHUNK] = column
    return tensors


def _columns(
    data: BatchDataset, positions: np.ndarray, transforms: Sequence[Callable]
) -> list[Tensor] | None:
    """Return samples as tensors (B, ...), or None where they are no plain tuples of such."""
    samples = [*data.read(BatchIndices(0, positions), transforms)]
    try:
        columns = default_collate(samples)
    except (TypeError, RuntimeError, LookupError):
        return None
    is_plain = all(type(sample) in (tuple, list) for sample in samples)
    return columns if is_plain and all(isinstance(c, Tensor) for c in columns) else None


def _kinds(columns: Sequence[Tensor]) -> list[tuple[torch.dtype, torch.Size]]:
    return [(column.dtype, column.shape[1:]) for column in columns]
