"""What is known not to change, and what is left to workers."""

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import datasets, transforms
from torchvision.transforms import v2

from base.base_data_loader import BaseDataLoader
from base.data.deterministic import is_deterministic, reads_files

CPU = torch.device("cpu")
TO_FLOAT = v2.ToDtype(torch.float32, scale=True)


class Listed(Dataset):
    """A dataset of given samples that never change."""

    deterministic = True

    def __init__(self, *samples) -> None:
        self.samples = samples
        self.reads = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        self.reads += 1
        return self.samples[index]


def loader(dataset, steps=(), *, in_memory=False, **kwargs) -> BaseDataLoader:
    torch.manual_seed(5)
    made = BaseDataLoader(dataset, **({"batch_size": 4} | kwargs))
    made.told = made.prepare(list(steps), in_memory=in_memory, device=CPU, training=True)
    return made


ANCESTORS = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (TensorDataset(torch.ones(1)), True),
        (Subset(TensorDataset(torch.ones(1)), [0]), True),
        (v2.Compose([v2.ToImage(), v2.Normalize([0], [1])]), True),
        (v2.Compose([v2.ToImage(), v2.RandomCrop(2)]), False),
        (transforms.ToTensor(), True),
        (transforms.RandomHorizontalFlip(), False),
        (v2.RandomApply([v2.Identity()]), False),
        (v2.Lambda(lambda x: x), False),
        (lambda x: x, False),
        (Listed(), True),
        (Dataset(), False),
        (datasets.FakeData(), False),
    ],
)
def test_what_never_changes_is_known(thing, expected):
    assert is_deterministic(thing) is expected


def test_a_torchvision_dataset_is_known_unless_it_draws(mnist):
    assert is_deterministic(mnist(ANCESTORS))
    assert not is_deterministic(mnist(v2.RandomCrop(2)))


def test_every_transform_said_to_be_deterministic_exists():
    from base.data.deterministic import BATCHED, DETERMINISTIC, FROM_PIL

    assert DETERMINISTIC.issubset({*vars(v2), *vars(transforms)})
    assert BATCHED | FROM_PIL <= DETERMINISTIC


def test_an_image_folder_is_known_but_left_to_workers_unless_its_transform_draws(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "a" / "1.png")
    folder = datasets.ImageFolder(tmp_path)
    for dataset in (folder, Subset(folder, [0])):
        assert is_deterministic(dataset)
        assert reads_files(dataset)
        assert "read files" in loader(dataset, in_memory="auto").told
    assert not is_deterministic(datasets.ImageFolder(tmp_path, transform=v2.RandomCrop(1)))
    assert not is_deterministic(datasets.ImageFolder(tmp_path, loader=lambda path: path))
