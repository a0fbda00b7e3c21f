"""What stands between a dataset and its loader: transforms, per-sample seeds, samples in memory."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate
from tqdm import tqdm

from base.errors import DataError
from base.sample_rng import mix, preserved_rng, sample_keys, seed_global_generators

# torchvision's transforms that give the same output for the same input; all others may draw.
DETERMINISTIC = frozenset({
    "CenterCrop", "Compose", "ConvertImageDtype", "FiveCrop", "Grayscale", "Identity", "Normalize",
    "Pad", "PILToTensor", "RGB", "Resize", "TenCrop", "ToDtype", "ToImage", "ToPILImage",
    "ToPureTensor", "ToTensor",
})  # fmt: skip
# Those of them that take a batch (B, C, H, W) as well as one image.
BATCHED = frozenset({"CenterCrop", "Normalize", "Pad", "Resize", "ToDtype", "ToPureTensor"})
CHUNK = 1000
MEMORY_SHARE = 0.25  # of what is free may be taken for a dataset


class BatchIndices(NamedTuple):
    """What a sampler asks for: positions among the loader's samples, (B,) int64, of an epoch."""

    epoch: int
    positions: Tensor


class Samples(Dataset):
    """Batches of a dataset's samples at `indices`, the same for any number of workers.

    Transforms apply to a sample's first element. One with `takes_keys = True` gets a batch
    (B, ...) and its samples' keys (B,) and must come last; see `base.sample_rng`.
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
        self.tensors: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def set_transforms(self, transforms: Sequence[Callable]) -> None:
        self.sample_transforms = [t for t in transforms if not getattr(t, "takes_keys", False)]
        self.batch_transforms = [t for t in transforms if getattr(t, "takes_keys", False)]

    @property
    def is_batched(self) -> bool:
        """Whether batches are cut from tensors in memory, with nothing to do for each sample."""
        return self.tensors is not None and not self.sample_transforms

    def __getitems__(self, batch: BatchIndices) -> Any:
        """Return the collated batch; the DataLoader has nothing left to do."""
        epoch, positions = batch
        if self.is_batched:
            rows = positions.to(self.tensors[0].device)
            columns = [tensor[rows] for tensor in self.tensors]
        else:
            with preserved_rng():
                samples = [self._sample(epoch, position) for position in positions.tolist()]
            columns = self.collate_fn(samples)
        if not self.batch_transforms:
            return columns
        first, *others = columns
        keys = sample_keys(self.seed, epoch, self.indices[positions]).to(first.device)
        for transform in self.batch_transforms:
            first = transform(first, keys)
        return [first, *others]

    def _sample(self, epoch: int, position: int) -> Any:
        index = int(self.indices[position])
        seed_global_generators(mix(self.seed, epoch, index))
        sample = self._raw(index) if self.tensors is None else self._kept(position)
        return _apply(self.sample_transforms, sample)

    def _raw(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except (OSError, EOFError) as error:
            name = type(self.dataset).__name__
            raise DataError(f"sample {index} of {name} cannot be read: {error}") from error

    def _kept(self, position: int) -> tuple[Any, ...]:
        return tuple(tensor[position] for tensor in self.tensors)

    def reason_against_memory(self, *, forced: bool) -> str:
        """Return why the samples are not to be kept in memory, or "" if they can be."""
        if not forced and not is_deterministic(self.dataset):
            return "the dataset may draw random numbers, or reads from disk"
        sample = _tensor_sample(self.dataset, int(self.indices[0]), self._split_transforms()[0])
        if sample is None:
            return "its samples are no tuples of tensors of one shape"
        needed = len(self) * sum(tensor.nbytes for tensor in sample)
        if not forced and needed > free_memory() * MEMORY_SHARE:
            return f"it would take {needed / 2**30:.1f} GiB"
        return ""

    def keep_in_memory(self, *, device: torch.device) -> None:
        """Read every sample once, apply the leading deterministic transforms, keep the tensors."""
        before, batched, after = self._split_transforms()
        chunks = []
        positions = range(0, len(self), CHUNK)
        with preserved_rng():
            for start in tqdm(positions, desc="reading data", leave=False, disable=None, delay=1):
                indices = self.indices[start : start + CHUNK].tolist()
                samples = [_apply(before, self._raw(index)) for index in indices]
                chunks.append(_apply(batched, default_collate(samples)))
        self.tensors = tuple(torch.cat(parts).to(device) for parts in zip(*chunks, strict=True))
        self.sample_transforms = after

    def _split_transforms(self) -> tuple[list[Callable], list[Callable], list[Callable]]:
        """Split the per-sample transforms: once per sample, once per chunk, and each time."""
        known = _leading(self.sample_transforms, is_deterministic)
        batched = _leading(known[::-1], lambda t: type(t).__name__ in BATCHED)[::-1]
        return known[: len(known) - len(batched)], batched, self.sample_transforms[len(known) :]


def is_deterministic(thing: Any) -> bool:
    """Tell whether a dataset or transform is known to give the same for the same index or input.

    Known are torch's and torchvision's that are, unless a transform inside them draws, and any
    class of the project with `deterministic = True`. A dataset that reads a file for each sample is
    not counted: workers decode it better.
    """
    if hasattr(thing, "deterministic"):
        return bool(thing.deterministic)
    module, name = type(thing).__module__, type(thing).__name__
    if isinstance(thing, TensorDataset):
        return True
    if module.startswith("torchvision.transforms"):
        return name in DETERMINISTIC and all(
            map(is_deterministic, getattr(thing, "transforms", ()))
        )
    if module.startswith("torchvision.datasets") and hasattr(thing, "data"):
        inner = (getattr(thing, "transform", None), getattr(thing, "target_transform", None))
        return all(transform is None or is_deterministic(transform) for transform in inner)
    return False


def free_memory() -> int:
    """Return the free memory of the machine in bytes, as far as the system tells."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows; macOS does not know the first name
        return 8 * 2**30


def _apply(transforms: Sequence[Callable], sample: Any) -> Any:
    if not transforms:
        return sample
    if not isinstance(sample, (tuple, list)):
        raise DataError(f"transforms need samples (input, ...), found {type(sample).__name__}")
    first, *others = sample
    for transform in transforms:
        first = transform(first)
    return (first, *others)


def _tensor_sample(
    dataset: Dataset, index: int, transforms: Sequence[Callable]
) -> tuple[Tensor, ...] | None:
    with preserved_rng():
        sample = _apply(transforms, dataset[index])
    if not isinstance(sample, (tuple, list)):
        return None
    if not all(isinstance(part, Tensor | int | float) or hasattr(part, "dtype") for part in sample):
        return None
    return tuple(torch.as_tensor(part) for part in sample)


def _leading(transforms: Sequence[Callable], accepts: Callable[[Callable], bool]) -> list[Callable]:
    for position, transform in enumerate(transforms):
        if not accepts(transform):
            return list(transforms[:position])
    return list(transforms)
