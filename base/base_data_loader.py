"""The contract of data loaders: batches in an order that the run's seed fixes."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from base.data.batch_dataset import BatchDataset
from base.data.in_memory import keep_in_memory
from base.data.order import BatchIndices, EpochBatchSampler, SampleOrder
from base.data.split import split_indices
from base.errors import DataError, UsageError
from base.runtime.device import to_device
from base.runtime.stop_signal import leave_signals_to_parent

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class BaseDataLoader(DataLoader):
    """Batches of a map-style dataset in an order that the run's seed fixes.

    `validation_split` is the share (a float, 0 to below 1) or number (an int) of samples that
    `split_validation` holds back, or a fold of them ("2/5"), chosen by the seed. `sampler` draws
    the others in another order than a plain shuffle. `timeout` is in seconds and ends a run whose
    worker hangs. A loader of the project that does not pass `seed` on uses torch's initial one,
    which a run sets before it builds anything. A dataset that has a method `fit_to` is told the
    indices of the training samples.

    Raises:
        DataError: the dataset is empty or has no length, or the split leaves nothing.
        UsageError: the batch size is below 1, or `sampler` is no SampleOrder or lacks something of
            the samples.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: Count = 1,
        shuffle: bool = True,
        validation_split: Share | Count | str = 0.0,
        num_workers: Annotated[int, Field(ge=0)] = 0,
        collate_fn: Callable = default_collate,
        *,
        sampler: SampleOrder | None = None,
        timeout: Annotated[float, Field(ge=0)] = 0,
        prefetch_factor: Count | None = None,
        seed: int | None = None,
        indices: Tensor | None = None,
    ) -> None:
        self.seed = torch.initial_seed() % 2**63 if seed is None else seed
        self.valid_indices = torch.arange(0)
        if indices is None:
            indices, self.valid_indices = split_indices(dataset, validation_split, seed=self.seed)
            if hasattr(dataset, "fit_to"):
                dataset.fit_to(indices)
        samples = BatchDataset(dataset, indices, seed=self.seed, collate_fn=collate_fn)
        batch_sampler = EpochBatchSampler(
            len(samples), batch_size=batch_size, shuffle=shuffle, seed=self.seed, sampler=sampler
        )
        if sampler is not None and shuffle:
            sampler.prepare(samples, batch_size=batch_sampler.global_batch_size)
        options = {"timeout": timeout, "prefetch_factor": prefetch_factor} if num_workers else {}
        self.worker_options = {"num_workers": num_workers, **options}
        super().__init__(
            samples,
            batch_sampler=batch_sampler,
            collate_fn=_already_collated,
            persistent_workers=num_workers > 0,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # its own, so that iterating draws nothing from the run's
            **self.worker_options,
        )
        self.per_rank_batch_size = batch_size
        self.in_memory = False

    @property
    def num_samples(self) -> int:
        return len(self.dataset)

    @property
    def fitted(self) -> dict[str, Any]:
        """What the dataset learned of the training samples, {} where it has no such attribute."""
        return getattr(self.dataset.dataset, "fitted", {})

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches that `batches` asked for, at first those of epoch 0.

        Raises:
            DataError: a sample cannot be read, or a worker hangs or was killed.
        """
        if self.dataset.is_batched:  # torch's iterator would only add its cost
            yield from self.dataset.cut_batches(self.batch_sampler)
            return
        try:
            for batch in super().__iter__():
                if isinstance(batch, DataError):
                    raise batch
                yield batch
        except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
            if self.num_workers and (dead := worker_error(error)):
                raise dead from error
            raise

    def batches(self, start: int, count: int) -> Iterator[Any]:
        """Yield `count` batches from the one numbered `start` through all epochs."""
        self.batch_sampler.start, self.batch_sampler.stop = start, start + count
        return iter(self)

    def batch_at(self, positions: np.ndarray) -> Any:
        """Return a batch of the samples at some positions, without starting a worker."""
        return self.dataset.__getitems__(BatchIndices(0, positions))

    def inputs_at(self, positions: np.ndarray) -> Any:
        """Return the first part of a batch of the samples at some positions."""
        batch = self.batch_at(positions)
        first = next(iter(batch.values())) if isinstance(batch, dict) else batch
        return first[0] if isinstance(first, (tuple, list)) else first

    def peek(self, device: torch.device, count: int = 32) -> Any:
        """Return the inputs of the first samples on `device`."""
        return to_device(self.inputs_at(np.arange(min(count, self.num_samples))), device)

    def split_validation(self) -> "BaseDataLoader | None":
        """Return a loader, never shuffled, of the samples held back, or None if there are none."""
        if len(self.valid_indices) == 0:
            return None
        return BaseDataLoader(
            self.dataset.dataset,
            self.per_rank_batch_size,
            shuffle=False,
            collate_fn=self.dataset.collate_fn,
            seed=self.seed,
            indices=self.valid_indices,
            **self.worker_options,
        )

    def prepare(
        self,
        transforms: Sequence[Callable],
        *,
        in_memory: bool | str,
        device: torch.device,
        training: bool,
    ) -> str:
        """Set the transforms, keep the samples where `keep_in_memory` can; return that in words.

        Raises:
            DataError: training data cannot be kept though it must, or a rank would get none.
            UsageError: training data has a sampler and is not to be shuffled.
        """
        order, data = self.batch_sampler, self.dataset
        if training and order.sampler and not order.shuffle:
            name = type(order.sampler).__name__
            raise UsageError(f"sampler {name} shuffles, but shuffle is false; remove one of them")
        order.every_rank_steps = training
        if training and len(self) == 0:
            few = f"{self.num_samples} samples are too few"
            raise DataError(f"{few} for {order.world_size} processes")
        data.set_transforms(transforms)
        reason = keep_in_memory(data, in_memory, device)
        if training and in_memory is True and reason:
            raise DataError(f"data_loader.in_memory is true, but the samples cannot be: {reason}")
        self.in_memory, self.pin_memory = not reason, device.type == "cuda"
        if reason:
            readers = f"{self.num_workers} workers" if self.num_workers else "the main process"
            return f"read by {readers}: {reason}"
        data.pin_memory = self.pin_memory and data.tensors[0].is_cpu
        megabytes = sum(tensor.nbytes for tensor in data.tensors) / 1e6
        return f"kept in memory ({megabytes:.0f} MB on {data.tensors[0].device})"


def _already_collated(batch: Any) -> Any:
    return batch


def worker_error(error: Exception) -> DataError | None:
    """Return torch's error for a worker that was killed or hangs as the user's, else None.

    Torch may raise it anywhere in the main thread, not only where a batch is asked for, and lets
    its handler raise in whatever runs just then when a worker ends: the handler is taken away.
    """
    is_torchs = str(error).startswith("DataLoader ")
    if isinstance(error, RuntimeError) and not is_torchs:
        return None
    with suppress(AttributeError, ValueError):  # on Windows, and outside the main thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return DataError(str(error) if is_torchs else f"a DataLoader worker died: {error!r}")
