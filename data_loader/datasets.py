"""Datasets: every `Dataset` defined in this folder can be named in a config."""

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Digits(Dataset):
    """Scikit-learn's handwritten digits: 1,797 images (1, 8, 8) in [0, 1], 10 classes.

    A fixed fifth, chosen at random, is for testing (360), the rest for training (1,437). Source:
    Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998, doi:10.24432/C50P49.
    """

    deterministic = True  # a sample never changes, so it can be kept in memory

    def __init__(self, train: bool = True) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(digits.target), generator=generator)
        chosen = (order[360:] if train else order[:360]).sort().values
        self.images = torch.from_numpy(digits.images / 16).float()[chosen].unsqueeze(1)
        self.targets = torch.from_numpy(digits.target).long()[chosen]
        self.classes = [str(name) for name in digits.target_names]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]
