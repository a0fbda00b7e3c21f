"""Loaders that make their own dataset; most configs name a dataset and use the stock loader."""

import torch

from base import BaseDataLoader


class MnistDataLoader(BaseDataLoader):
    """MNIST, fetched into `data_dir` once; images (B, 1, 28, 28) of mean 0 and deviation 1.

    Without a network its files are looked for in `data_dir`/MNIST/raw.
    """

    def __init__(
        self,
        data_dir: str,
        batch_size: int,
        shuffle: bool = True,
        validation_split: float | str = 0.0,
        num_workers: int = 1,
        training: bool = True,
    ) -> None:
        from torchvision import datasets
        from torchvision.transforms import v2

        transform = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1307], [0.3081])]
        )
        dataset = datasets.MNIST(data_dir, train=training, download=True, transform=transform)
        super().__init__(dataset, batch_size, shuffle, validation_split, num_workers)
