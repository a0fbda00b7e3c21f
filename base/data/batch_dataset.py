"""What stands between a dataset and its loader: per-sample seeds, transforms, samples in memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info
from tqdm import tqdm

from base.data.deterministic import batch_reader, draws_nothing, is_deterministic
from base.data.order import AGAIN, BatchIndices
from base.data.sample_rng import MASK, next_keys, preserved_rng, sample_keys, seed_global_generators
from base.errors import DataError, UsageError
from base.runtime import distributed
from base.runtime.device import free_memory, to_device

CHUNK = 128  # samples put into memory at once
CUT_BYTES = (2**18, 2**24)  # cut at once from those in memory, on the CPU and on an accelerator
MEMORY_SHARE = 0.25  # of what is free may be taken for a dataset unasked
NO_COLUMNS = "they are not tuples of tensors or numbers of one shape"
progress = partial(tqdm, desc="reading data", leave=False, disable=None, delay=1)

Reader = Callable[[np.ndarray], list[Tensor] | None]  # positions (B,) to columns (B, ...)


class Samples(Dataset):
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
        """Set what is applied, in order.

        Raises:
            UsageError: a transform of single samples follows one of whole batches.
        """
        takes_keys = [getattr(transform, "takes_keys", False) for transform in transforms]
        num_single = takes_keys.count(False)
        if any(takes_keys[:num_single]):
            name = type(transforms[takes_keys.index(True)]).__name__
            raise UsageError(f"{name} works on whole batches, so it must come last of transforms")
        self.sample_transforms = list(transforms[:num_single])
        self.batch_transforms = list(transforms[num_single:])

    @property
    def is_batched(self) -> bool:
        """Whether batches are cut from tensors in memory, with nothing to do for each sample."""
        return bool(self.tensors) and not self.sample_transforms

    def __getitems__(self, asked: BatchIndices) -> Any:
        """Return the collated batch, or in a worker the DataError for the loader to raise."""
        try:
            if self.is_batched:
                return next(self.batches([asked]))
            with _as_in_a_worker():
                batch = self._collate([*self._read(asked, self.sample_transforms)])
            return self._augmented(batch, asked) if self.batch_transforms else batch
        except DataError as error:
            if get_worker_info() is None:
                raise
            return error  # raised here, it would arrive with its traceback for a message

    def batches(self, asked: Iterable[BatchIndices]) -> Iterator[Any]:
        """Yield batches of tensors in memory; small ones are cut several at once."""
        asked, device = iter(asked), self.tensors[0].device
        num_bytes = sum(tensor[0].nbytes for tensor in self.tensors)
        while group := list(islice(asked, 1)):
            num_more = CUT_BYTES[device.type != "cpu"] // (num_bytes * len(group[0].positions) + 1)
            group += islice(asked, num_more)
            rows = np.concatenate([batch.positions for batch in group]) & (AGAIN - 1)
            rows = torch.from_numpy(rows)
            rows, sizes = to_device(rows, device), [len(batch.positions) for batch in group]
            columns = [tensor.index_select(0, rows) for tensor in self.tensors]
            if self.pin_memory:
                columns = [column.pin_memory() for column in columns]
            columns = [column.split(sizes) for column in columns]
            for batch_asked, *batch in zip(group, *columns, strict=True):
                yield self._augmented(batch, batch_asked) if self.batch_transforms else batch

    def _augmented(self, batch: Any, asked: BatchIndices) -> list[Any]:
        first, *others = _parts(batch)
        keys = to_device(self._keys(asked), first.device)
        for transform in self.batch_transforms:
            first = transform(first, keys)
            keys = next_keys(keys)  # equal draws would tie one transform to another
        return [first, *others]

    def _keys(self, asked: BatchIndices) -> Tensor:
        """Return the samples' keys (B,), another one each time that a position is asked for."""
        epoch, positions = asked
        rows = positions & (AGAIN - 1)
        indices = self.indices.index_select(0, torch.from_numpy(rows))
        return sample_keys(self.seed, epoch, indices.add_(torch.from_numpy(positions - rows)))

    def _read(self, asked: BatchIndices, transforms: Sequence[Callable]) -> Iterator[Any]:
        """Yield samples through transforms, the generators seeded for each if anything may draw."""
        rows = asked.positions & (AGAIN - 1)
        indices = self.indices[torch.from_numpy(rows)].tolist()
        keys = self._keys(asked).tolist()
        may_draw = not (
            self.collate_fn is default_collate
            and draws_nothing(self.dataset)
            and all(map(is_deterministic, transforms))
        )
        for row, index, key in zip(rows.tolist(), indices, keys, strict=True):
            if may_draw:
                seed_global_generators(key & MASK)
            yield self._sample(row, index, transforms)

    def _sample(self, row: int, index: int, transforms: Sequence[Callable]) -> Any:
        try:
            if self.tensors:  # copies, since a transform may work in place
                sample = tuple(tensor[row].clone() for tensor in self.tensors)
            else:
                sample = self.dataset[index]
            return _transformed(sample, transforms)
        except Exception as error:
            place = f"sample {index} of {type(self.dataset).__name__}"
            if isinstance(error, OSError | EOFError):
                raise DataError(f"{place} cannot be read: {error}") from error
            error.add_note(f"This was {place}.")  # a bug of any kind goes on, with the place added
            raise

    def _collate(self, samples: Sequence[Any]) -> Any:
        try:
            return self.collate_fn(samples)
        except (TypeError, RuntimeError, LookupError) as error:
            if self.collate_fn is not default_collate:
                raise
            name = type(self.dataset).__name__
            raise DataError(f"samples of {name} cannot be put into a batch: {error}") from error

    # --- what samplers ask ----------------------------------------------------------------------

    def numbers(self, attribute: str, take: Callable[[Any], Any]) -> Tensor:
        """Return a whole number for each sample, (N,) int64.

        They are the dataset's `attribute`, else what `take` finds in each sample as it is read.

        Raises:
            UsageError: some samples have none.
            DataError: a sample cannot be read.
        """
        total, chosen = len(self.dataset), self.indices
        values = getattr(self.dataset, attribute, None)
        # which does not hold what a target transform gives
        if values is None or getattr(self.dataset, "target_transform", None) is not None:
            total, chosen = len(self), slice(None)
            with _as_in_a_worker():
                samples = self._read(BatchIndices(0, np.arange(total)), ())
                values = [take(sample) for sample in progress(samples, total=total)]
        with suppress(TypeError, ValueError, RuntimeError):  # some are missing, text or uneven
            values = torch.as_tensor(values)
            if values.shape == (total,) and bool((values == values.long()).all()):
                return values.long()[chosen]
        name = type(self.dataset).__name__
        raise UsageError(
            f"{name} has no {attribute} for the sampler, which needs a whole number for each sample"
        )

    # --- in memory ------------------------------------------------------------------------------

    def keep_in_memory(self, *, device: torch.device, forced: bool) -> str:
        """Keep all samples as tensors, after the leading deterministic transforms.

        Not `forced`, they are kept where they are known not to change and fit easily; on `device`
        if nothing is left to do for each sample. Return why they are not kept, "" if they are.
        """
        if self.collate_fn is not default_collate:
            return "they have a collate function of their own"
        if not forced and not is_deterministic(self.dataset):
            return (
                "it may draw at random or read files (else set `deterministic = True` on its class)"
            )
        known = list(takewhile(is_deterministic, self.sample_transforms))
        with _as_in_a_worker():
            ends = self._columns(np.array([0, len(self) - 1]), known)
            if ends is None:
                return NO_COLUMNS
            num_bytes = sum(column[0].nbytes for column in ends) * len(self)
            free = free_memory(torch.device("cpu")) / distributed.local_world_size()
            if num_bytes > free * (1 if forced else MEMORY_SHARE):
                return f"they would take {num_bytes / 2**30:.1f} GiB of {free / 2**30:.1f} free"
            tensors = [column.new_empty(len(self), *column.shape[1:]) for column in ends]
            if not self._fill(tensors, self._reader(known, ends)):
                return NO_COLUMNS
        self.sample_transforms = self.sample_transforms[len(known) :]
        if not self.sample_transforms and num_bytes < free_memory(device) * MEMORY_SHARE:
            tensors = [tensor.to(device) for tensor in tensors]
        self.tensors = tensors
        return ""

    def _reader(self, transforms: Sequence[Callable], ends: Sequence[Tensor]) -> Reader:
        """Return what reads many samples at once, if it gives the first and last bitwise."""
        read = batch_reader(self.dataset, transforms)
        if read is not None:
            found = zip(read(self.indices[[0, -1]]), ends, strict=True)
            if all(a.dtype == b.dtype and torch.equal(a, b) for a, b in found):
                return lambda positions: read(self.indices[positions])
        return partial(self._columns, transforms=transforms)

    def _fill(self, tensors: Sequence[Tensor], read: Reader) -> bool:
        """Write every sample into `tensors`, and tell whether all of them fit."""
        kinds = [(tensor.dtype, tensor.shape[1:]) for tensor in tensors]
        for start in progress(range(0, len(self), CHUNK)):
            columns = read(np.arange(start, min(start + CHUNK, len(self))))
            if columns is None or [(c.dtype, c.shape[1:]) for c in columns] != kinds:
                return False
            for tensor, column in zip(tensors, columns, strict=True):
                tensor[start : start + CHUNK] = column
        return True

    def _columns(
        self, positions: np.ndarray, transforms: Sequence[Callable]
    ) -> list[Tensor] | None:
        """Return samples as tensors (B, ...), or None where they are no plain tuples of such."""
        samples = [*self._read(BatchIndices(0, positions), transforms)]
        try:
            columns = default_collate(samples)
        except (TypeError, RuntimeError, LookupError):
            return None
        is_plain = all(type(sample) in (tuple, list) for sample in samples)
        return columns if is_plain and all(isinstance(c, Tensor) for c in columns) else None


def _transformed(sample: Any, transforms: Sequence[Callable]) -> Any:
    if not transforms:
        return sample
    first, *others = _parts(sample)
    for transform in transforms:
        first = transform(first)
    return (first, *others)


def _parts(sample: Any) -> Sequence[Any]:
    if not isinstance(sample, (tuple, list)) or not sample:
        raise DataError(f"transforms need samples (input, ...), found {type(sample).__name__}")
    return sample


@contextmanager
def _as_in_a_worker() -> Iterator[None]:
    """Compute on one thread, since sums depend on the number, and give the generators back."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with preserved_rng():
            yield
    finally:
        torch.set_num_threads(num_threads)
