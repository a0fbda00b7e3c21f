"""A dataset's samples as batches: transformed, with random draws that belong to each sample."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from base.data.deterministic import is_deterministic
from base.data.order import BatchIndices
from base.data.sample_rng import as_in_a_worker, next_keys, sample_keys, seed_global_generators
from base.errors import DataError
from base.runtime.device import to_device

CUT_BYTES = (2**18, 2**24)  # cut at once from tensors in memory, on the CPU and an accelerator


class BatchDataset(Dataset):
    """Batches of a dataset's samples at `indices`, the same for any number of workers.

    Transforms apply to a sample's first element. One with `takes_keys = True` gets a batch
    (B, ...) and its samples' keys (B,); see `base.data.sample_rng`.
    """

    def __init__(
        self, dataset: Dataset, indices: Tensor, *, seed: int, collate_fn: Callable
    ) -> None:
        self.dataset = dataset
        self.indices = indices
        self.seed = seed
        self.collate_fn = collate_fn
        self.sample_transforms: list[Callable] = []
        self.batch_transforms: list[Callable] = []
        self.tensors: list[Tensor] = []  # the samples' columns (N, ...) when kept in memory
        self.pin_memory = False  # for batches cut from them, to be copied to a GPU meanwhile

    def __len__(self) -> int:
        return len(self.indices)

    def set_transforms(self, transforms: Sequence[Callable]) -> None:
        """Set what is applied, in order; those of whole batches come last."""
        self.batch_transforms = [t for t in transforms if getattr(t, "takes_keys", False)]
        self.sample_transforms = [t for t in transforms if not getattr(t, "takes_keys", False)]

    @property
    def is_batched(self) -> bool:
        """Whether batches are cut from tensors in memory, with nothing to do for each sample."""
        return bool(self.tensors) and not self.sample_transforms

    def __getitems__(self, request: BatchIndices) -> Any:
        """Return the collated batch, or in a worker the DataError for the loader to raise."""
        try:
            if self.is_batched:
                return next(self.cut_batches([request]))
            with as_in_a_worker():
                batch = self._collate([*self.read(request, self.sample_transforms)])
            return self._augment(batch, request)
        except DataError as error:
            if get_worker_info() is None:
                raise
            return error  # raised here, it would arrive with its traceback for a message

    def cut_batches(self, requests: Iterable[BatchIndices]) -> Iterator[Any]:
        """Yield batches of tensors in memory; small ones are cut several at once."""
        requests, device = iter(requests), self.tensors[0].device
        num_bytes = sum(tensor[0].nbytes for tensor in self.tensors)
        while group := list(islice(requests, 1)):
            num_more = CUT_BYTES[device.type != "cpu"] // (num_bytes * len(group[0].positions) + 1)
            group += islice(requests, num_more)
            together = BatchIndices(0, np.concatenate([request.positions for request in group]))
            rows = to_device(torch.from_numpy(together.rows), device)
            sizes = [len(request.positions) for request in group]
            columns = [tensor.index_select(0, rows) for tensor in self.tensors]
            if self.pin_memory:
                columns = [column.pin_memory() for column in columns]
            columns = [column.split(sizes) for column in columns]
            for request, *batch in zip(group, *columns, strict=True):
                yield self._augment(batch, request)

    def _augment(self, batch: Any, request: BatchIndices) -> Any:
        if not self.batch_transforms:
            return batch
        first, *others = _parts(batch)
        keys = to_device(self._keys(request), first.device)
        for transform in self.batch_transforms:
            first = transform(first, keys)
            keys = next_keys(keys)  # equal draws would tie one transform to another
        return [first, *others]

    def _keys(self, request: BatchIndices) -> Tensor:
        """Return the samples' keys (B,), another one each time that a position is asked for."""
        repeats = torch.from_numpy(request.positions - request.rows)
        return sample_keys(self.seed, request.epoch, self._indices(request) + repeats)

    def _indices(self, request: BatchIndices) -> Tensor:
        return self.indices[torch.from_numpy(request.rows)]

    def read(self, request: BatchIndices, transforms: Sequence[Callable] = ()) -> Iterator[Any]:
        """Yield samples through transforms, the generators seeded for each if anything may draw."""
        things = (self.dataset, *transforms)
        may_draw = self.collate_fn is not default_collate or not all(map(is_deterministic, things))
        places = (request.rows, self._indices(request), self._keys(request))
        for row, index, key in zip(*(numbers.tolist() for numbers in places), strict=True):
            if may_draw:
                seed_global_generators(key)
            yield self._sample(row, index, transforms)

    def _sample(self, row: int, index: int, transforms: Sequence[Callable]) -> Any:
        try:
            if self.tensors:  # copies, since a transform may work in place
                sample = tuple(tensor[row].clone() for tensor in self.tensors)
            else:
                sample = self.dataset[index]
            if not transforms:
                return sample
            first, *others = _parts(sample)
            for transform in transforms:
                first = transform(first)
            return (first, *others)
        except (OSError, EOFError) as error:
            place = f"sample {index} of {type(self.dataset).__name__}"
            raise DataError(f"{place} cannot be read: {error}") from error
        except Exception as error:  # a bug of any kind goes on, with the place added
            error.add_note(f"This was sample {index} of {type(self.dataset).__name__}.")
            raise

    def _collate(self, samples: Sequence[Any]) -> Any:
        try:
            return self.collate_fn(samples)
        except (TypeError, RuntimeError, LookupError) as error:
            if self.collate_fn is not default_collate:
                raise
            name = type(self.dataset).__name__
            raise DataError(f"samples of {name} cannot be put into a batch: {error}") from error


def _parts(sample: Any) -> Sequence[Any]:
    if not isinstance(sample, (tuple, list)) or not sample:
        raise DataError(f"transforms need samples (input, ...), found {type(sample).__name__}")
    return sample
