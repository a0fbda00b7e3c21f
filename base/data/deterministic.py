"""What is known of torch's and torchvision's data: what never changes, what can be read at once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

# torchvision's transforms that give the same output for the same input; all others may draw.
DETERMINISTIC = frozenset({
    "CenterCrop", "Compose", "ConvertImageDtype", "Grayscale", "Identity", "Normalize", "Pad",
    "PILToTensor", "RGB", "Resize", "ToDtype", "ToImage", "ToPILImage", "ToPureTensor", "ToTensor",
})  # fmt: skip
# Those of them that treat a batch (B, C, H, W) as they treat one image.
BATCHED = frozenset({"CenterCrop", "Normalize", "Pad", "Resize", "ToDtype", "ToPureTensor"})
# Those that make a PIL image the tensor that it was cut from.
FROM_PIL = frozenset({"PILToTensor", "ToImage", "ToTensor"})
# Datasets that hold their images as one uint8 array `data` and give out a PIL image and an int.
ARRAYS = frozenset({"CIFAR10", "CIFAR100", "EMNIST", "FashionMNIST", "KMNIST", "MNIST"})


def is_deterministic(thing: Any) -> bool:
    """Tell whether a dataset or transform is known to give the same for the same index or input.

    Known are torch's and torchvision's that are, unless a transform inside them draws, and any
    class of the project with `deterministic = True`.
    """
    if hasattr(thing, "deterministic"):
        return bool(thing.deterministic)
    if type(thing) is Subset:
        return is_deterministic(thing.dataset)
    if _name(thing, "transforms") in DETERMINISTIC:
        return all(map(is_deterministic, getattr(thing, "transforms", ())))
    is_array = isinstance(getattr(thing, "data", None), Tensor | np.ndarray)
    if (_name(thing, "datasets") and is_array) or reads_files(thing):
        inner = (getattr(thing, name, None) for name in ("transform", "target_transform"))
        return all(transform is None or is_deterministic(transform) for transform in inner)
    return _is_plain_tensors(thing)


def reads_files(dataset: Any) -> bool:
    """Tell whether a dataset is known to read a file for each sample, which workers do better."""
    if type(dataset) is Subset:
        return reads_files(dataset.dataset)
    is_folder = _name(dataset, "datasets") == "ImageFolder"
    return is_folder and dataset.loader.__module__.startswith("torchvision.")


def read_at_once(
    dataset: Dataset, indices: Tensor, transforms: Sequence[Callable]
) -> list[Tensor] | None:
    """Return what the samples of indices (B,), each through `transforms`, give when collated.

    None where that cannot be had without reading each of them.
    """
    if _is_plain_tensors(dataset) and not transforms:
        return [tensor[indices] for tensor in dataset.tensors]
    if _name(dataset, "datasets") not in ARRAYS or dataset.target_transform is not None:
        return None
    own = dataset.transform
    own = own.transforms if _name(own, "transforms") == "Compose" else [own] if own else []
    first, *others = [*own, *transforms] or [None]
    names = {_name(transform, "transforms") for transform in others}
    if _name(first, "transforms") not in FROM_PIL or not names <= BATCHED:
        return None
    batch = torch.as_tensor(dataset.data[indices.numpy()])  # uint8
    batch = batch.unsqueeze(1) if batch.ndim == 3 else batch.movedim(-1, 1)  # (B, C, H, W)
    if type(first).__name__ == "ToTensor":
        batch = batch.to(torch.get_default_dtype()).div(255)
    for transform in others:
        batch = transform(batch)
    return [batch, torch.tensor([int(dataset.targets[i]) for i in indices.tolist()])]


def _is_plain_tensors(dataset: Any) -> bool:
    """Tell whether samples are cut from tensors just as torch's own class does it."""
    is_torchs = getattr(type(dataset), "__getitem__", None) is TensorDataset.__getitem__
    return isinstance(dataset, TensorDataset) and is_torchs


def _name(thing: Any, package: str) -> str:
    """Return the class's name if it is defined in a package of torchvision, else ""."""
    module = type(thing).__module__
    return type(thing).__name__ if module.startswith(f"torchvision.{package}") else ""
