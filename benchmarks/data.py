"""What data costs: training on MNIST from memory, augmenting whole batches, reading small images.

    python benchmarks/data.py

LeNet, Adam as in configs/config.json, batches of 128, two threads. Needs the files of MNIST below
data/MNIST/raw. A ratio below 1 means that ours is quicker. Needs a quiet machine: where other work
takes the cores, two threads wait for each other most of the time.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from compare import ROOT, assembled, medians, seconds
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from base import BaseDataLoader
from base.data.sample_rng import sample_keys
from data_loader.transforms import RandomAffine2d, RandomFlip, RandomShift
from model.model import MnistModel

# isort: split
# after base, which lets torchvision work beside a CPU-only torch
from PIL import Image
from torchvision import datasets, transforms
from torchvision.transforms import v2

BATCH_SIZE, NUM_BATCHES, NUM_ROUNDS = 128, 100, 5
NUM_IMAGES, IMAGE_SIZE, NUM_FOLDERS = 2000, 64, 10
NUM_WORKERS = 2
MEAN, STD = [0.1307], [0.3081]
ADAM = {"lr": 0.001, "weight_decay": 0, "amsgrad": True}
MNIST = {"root": str(ROOT / "data")}
CONFIG = {
    "name": "data",
    "device": "cpu",
    "dataset": {
        "type": "MNIST",
        "args": MNIST,
        "transform": [
            "ToImage",
            {"type": "ToDtype", "args": {"dtype": "float32", "scale": True}},
            {"type": "Normalize", "args": {"mean": MEAN, "std": STD}},
        ],
    },
    "valid_dataset": {"type": "MNIST", "args": MNIST | {"train": False}},
    "data_loader": {"args": {"batch_size": BATCH_SIZE, "num_workers": 0}},
    "model": "MnistModel",
    "loss": "nll_loss",
    "metrics": ["accuracy", "top_k_acc"],
    "optimizer": {"type": "Adam", "args": ADAM},
    "trainer": {"epochs": 1},
}


# --- training ------------------------------------------------------------------------------------


def ours(*overrides: str) -> float:
    """Return the seconds that `train_epoch` takes for `NUM_BATCHES`, metrics and logs included."""
    with assembled(CONFIG, f"trainer.limit_batches={NUM_BATCHES}", *overrides) as made:
        trainer, trainer.logger = made
        with redirect_stderr(io.StringIO()):  # its progress bar
            return seconds(trainer.train_epoch)


def by_hand(batches: Callable[[], Iterator[Any]]) -> float:
    """Return the seconds that a plain loop takes for `NUM_BATCHES`."""
    model = MnistModel()
    return seconds(partial(train_by_hand, model, islice(batches(), NUM_BATCHES)))


def train_by_hand(model: nn.Module, batches: Iterator[Any]) -> None:
    """Train on some batches with the optimizer implementation that is our default."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True, **ADAM)
    model.train()
    for images, target in batches:
        optimizer.zero_grad()
        F.nll_loss(model(images), target).backward()
        optimizer.step()


def from_tensors(images: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch's batches of tensors in memory, shuffled."""
    for index in torch.randperm(len(images)).split(BATCH_SIZE):
        yield images[index], targets[index]


def per_sample(*, train: bool) -> Dataset:
    """Return MNIST as torchvision's users read it: each image decoded and normalised by itself."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    return datasets.MNIST(**MNIST, train=train, transform=transform)


def plain_loader(dataset: Dataset) -> DataLoader:
    """Return torch's own loader; its workers live on, as ours do."""
    return DataLoader(
        dataset, BATCH_SIZE, shuffle=True, num_workers=NUM_WORKERS, persistent_workers=True
    )


def preloaded() -> tuple[Tensor, Tensor]:
    """Return all training images (N, 1, 28, 28), normalised, and their classes (N,)."""
    raw = datasets.MNIST(**MNIST)
    return (raw.data[:, None] / 255 - MEAN[0]) / STD[0], raw.targets


def compare_training() -> None:
    """Print what a step of training takes, however the images are read."""
    tensors = preloaded()
    pipeline = plain_loader(Subset(per_sample(train=True), range(BATCH_SIZE * NUM_BATCHES)))
    found = medians(
        {
            "ours, in memory": ours,
            "ours, channels_last": partial(ours, "trainer.channels_last=true"),
            "by hand, preloaded": partial(by_hand, partial(from_tensors, *tensors)),
            "by hand, per sample": partial(by_hand, pipeline.__iter__),
        },
        num_rounds=NUM_ROUNDS,
    )
    for name, value in found.items():
        print(f"{name:32} {value / NUM_BATCHES * 1e3:7.2f} ms a step")
    for name in list(found)[:2]:
        for other in list(found)[2:]:
            print(f"{name + ' / ' + other[9:]:32} {found[name] / found[other]:7.2f}")


def accuracy_of_ours() -> float:
    """Return the test accuracy after an epoch of ours, the reading of MNIST included."""
    with assembled(CONFIG) as (trainer, logger), redirect_stderr(io.StringIO()):
        return trainer.fit(logger=logger)["last"]["val_accuracy"]


@torch.no_grad()
def accuracy_of_per_sample() -> float:
    """Return the test accuracy after an epoch by hand over torchvision's samples."""
    model = MnistModel()
    with torch.enable_grad():
        train_by_hand(model, iter(plain_loader(per_sample(train=True))))
    model.eval()
    batches = plain_loader(per_sample(train=False))
    hits = [model(images).argmax(dim=1) == target for images, target in batches]
    return torch.cat(hits).float().mean().item()


def compare_accuracy() -> None:
    """Print the accuracy after a whole epoch, and the time from reading the data to the end."""
    for name, train in {"ours": accuracy_of_ours, "per sample": accuracy_of_per_sample}.items():
        torch.manual_seed(123)
        started = time.perf_counter()
        accuracy = train()
        took = time.perf_counter() - started
        print(f"{name + ', one epoch':32} {accuracy:7.4f} test accuracy, {took:.1f} s in all")


# --- augmentation --------------------------------------------------------------------------------


def compare_augmentation() -> None:
    """Print what augmenting a batch of MNIST takes, at once and image by image."""
    images = preloaded()[0][:BATCH_SIZE]
    keys = sample_keys(1, 0, torch.arange(BATCH_SIZE))
    bilinear = v2.InterpolationMode.BILINEAR
    pairs = {
        "RandomShift / RandomCrop": (RandomShift(2), v2.RandomCrop(28, padding=2)),
        "RandomFlip / RandomHorizontalFlip": (RandomFlip(), v2.RandomHorizontalFlip()),
        "RandomAffine2d / RandomAffine": (
            RandomAffine2d(10, 0.1, 0.1, 5),
            v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5, interpolation=bilinear),
        ),
    }
    for name, (whole, single) in pairs.items():
        found = medians(
            {
                "ours": partial(seconds, partial(whole, images, keys)),
                "theirs": partial(seconds, lambda single=single: [*map(single, images)]),
            },
            num_rounds=5 * NUM_ROUNDS,
        )
        each = {key: value / BATCH_SIZE * 1e6 for key, value in found.items()}
        numbers = f"{each['ours']:6.2f} and {each['theirs']:6.1f} us a sample"
        print(f"{name:34} {numbers}, ratio {each['ours'] / each['theirs']:.3f}")


# --- files ---------------------------------------------------------------------------------------


def write_images(folder: Path) -> None:
    """Write noise of `IMAGE_SIZE` squared as PNG files into a folder for each class."""
    generator = torch.Generator().manual_seed(1)
    for number in range(NUM_IMAGES):
        pixels = torch.randint(256, (IMAGE_SIZE, IMAGE_SIZE, 3), generator=generator)
        path = folder / str(number % NUM_FOLDERS) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)


def compare_files() -> None:
    """Print what an epoch of reading image files takes in our loader and in torch's."""
    steps = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.5] * 3),
    ]
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name))
        theirs = plain_loader(datasets.ImageFolder(name, transform=v2.Compose(steps)))
        mine = BaseDataLoader(datasets.ImageFolder(name), BATCH_SIZE, num_workers=NUM_WORKERS)
        mine.prepare(steps, in_memory=False, device=torch.device("cpu"), training=True)
        starts = count(0, len(mine))
        found = medians(
            {
                "our loader": lambda: seconds(lambda: [*mine.batches(next(starts), len(mine))]),
                "plain loader": lambda: seconds(lambda: [*theirs]),
            },
            num_rounds=3 * NUM_ROUNDS,
        )
    for loader, value in found.items():
        print(f"{loader + ', PNG files':32} {value / NUM_IMAGES * 1e6:7.1f} us a sample")
    print(f"{'our loader / plain loader':32} {found['our loader'] / found['plain loader']:7.3f}")


def main() -> None:
    """Measure and print everything, one part after the other."""
    folder = ROOT / "data/MNIST/raw"
    if not (folder / "train-images-idx3-ubyte").exists():
        sys.exit(f"MNIST is missing: put its files into {folder}")
    torch.set_num_threads(2)
    compare_training()
    compare_augmentation()
    compare_files()
    compare_accuracy()


if __name__ == "__main__":
    main()
