"""Samples in memory: the same batches as reading them one by one."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset
from torchvision import datasets, transforms
from torchvision.transforms import v2

from base.base_data_loader import BaseDataLoader
from base.data import in_memory as in_memory_module
from base.data.deterministic import read_at_once
from base.errors import DataError

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


def assert_same_batches(first, second) -> None:
    for batch, other in zip(first, second, strict=True):
        assert type(batch) is type(other)
        for column, expected in zip(batch, other, strict=True):
            assert column.dtype == expected.dtype
            assert torch.equal(column, expected)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Return a small CIFAR10, of which only the arrays matter here."""
    dataset = datasets.CIFAR10.__new__(datasets.CIFAR10)
    generator = np.random.default_rng(1)
    dataset.data = generator.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    dataset.targets = generator.integers(0, 10, 300).tolist()
    dataset.transform = dataset.target_transform = None
    return dataset


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "sample",
    [
        (torch.ones(2), 1),
        (np.ones(2, np.float32), np.int64(1)),
        (1.5, True),
        [1, 2.5],
        (torch.ones(2),),
        (torch.ones(2), np.float64(2), np.ones((2, 2), np.uint8), 3),
    ],
)
def test_tuples_of_tensors_and_numbers_are_kept_as_they_would_be_collated(sample):
    dataset = Listed(sample, sample, sample)
    kept = loader(dataset, in_memory="auto", batch_size=2)
    assert kept.told.startswith("kept in memory")
    assert_same_batches(kept, loader(dataset, batch_size=2))


@pytest.mark.parametrize(
    "sample",
    [
        torch.ones(2),
        {"x": torch.ones(2), "y": 1},
        (torch.ones(2), "cat"),
        (torch.ones(2), {"box": torch.ones(4)}),
        (torch.ones(2), (1, 2)),
        Pair(1, 2),
    ],
)
def test_other_samples_are_read_one_by_one_and_are_an_error_only_if_they_must_be_kept(sample):
    made = loader(Listed(sample, sample), in_memory="auto", batch_size=2)
    assert made.told.endswith("they are not tuples of tensors or numbers of one shape")
    assert type(next(iter(made))) in (torch.Tensor, dict, list, Pair)
    with pytest.raises(DataError, match=r"in_memory is true, but .* not tuples of tensors"):
        loader(Listed(sample, sample), in_memory=True)


@pytest.mark.parametrize("odd", [torch.zeros(1), torch.zeros(3, dtype=torch.float64)])
def test_a_shape_or_type_that_changes_far_inside_is_noticed(odd):
    samples = [(odd if 128 <= index < 256 else torch.zeros(3), index) for index in range(300)]
    made = loader(Listed(*samples), in_memory="auto", shuffle=False)
    assert made.told.endswith("they are not tuples of tensors or numbers of one shape")
    assert torch.equal([*made][32][0], odd.expand(4, -1))


def test_samples_in_memory_are_read_once(mnist):
    dataset = Listed(*((float(index), index) for index in range(300)))
    made = loader(dataset, in_memory="auto")
    reads = dataset.reads
    assert 300 <= reads <= 302
    for epoch in range(2):
        list(made.batches(epoch * len(made), len(made)))
    assert dataset.reads == reads


NORMALIZED = (v2.ToImage(), TO_FLOAT, v2.Normalize([0.1307], [0.3081]))
ANCESTORS = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])


@pytest.mark.parametrize(
    ("own", "steps", "is_read_at_once"),
    [
        (None, NORMALIZED, True),
        (v2.Compose(NORMALIZED), (), True),
        (ANCESTORS, (), True),
        (None, (transforms.PILToTensor(), v2.Resize(32), TO_FLOAT), True),
        (None, (v2.ToImage(), v2.Pad(2), v2.CenterCrop(24), v2.ToPureTensor()), True),
        (v2.ToImage(), (TO_FLOAT,), True),
        (None, (v2.Resize(20), v2.ToImage()), False),
        (None, (v2.Grayscale(3), v2.ToImage(), TO_FLOAT), False),
    ],
)
def test_mnist_in_memory_is_bitwise_what_is_read_one_by_one(mnist, own, steps, is_read_at_once):
    kept = loader(mnist(own), steps, in_memory="auto", validation_split=0.1)
    assert kept.dataset.is_batched
    assert_same_batches(kept, loader(mnist(own), steps, validation_split=0.1))
    found = read_at_once(mnist(own), kept.dataset.indices, steps)
    assert (found is not None) == is_read_at_once
    if is_read_at_once:
        assert_same_batches([found], [kept.dataset.tensors])


@pytest.mark.parametrize(
    "steps",
    [
        NORMALIZED[:2],
        (transforms.ToTensor(), v2.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), v2.Resize(40)),
        (v2.ToImage(), v2.Resize(24), TO_FLOAT),
    ],
)
def test_cifar_in_memory_is_bitwise_what_is_read_one_by_one(cifar, steps):
    kept = loader(cifar, steps, in_memory="auto")
    assert_same_batches(kept, loader(cifar, steps))
    assert_same_batches([read_at_once(cifar, torch.arange(300), steps)], [kept.dataset.tensors])


def test_what_does_not_give_the_first_sample_bitwise_is_not_read_at_once(mnist, monkeypatch):
    def off_by_little(*args):
        batch, targets = read_at_once(*args)
        return [batch * (1 + 1e-7), targets]

    monkeypatch.setattr(in_memory_module, "read_at_once", off_by_little)
    kept = loader(mnist(), NORMALIZED, in_memory="auto")
    assert_same_batches(kept, loader(mnist(), NORMALIZED))


def test_a_target_transform_is_not_passed_over(mnist):
    dataset = mnist()
    dataset.target_transform = v2.Identity()
    assert read_at_once(dataset, torch.arange(2), NORMALIZED) is None


def test_a_subset_of_known_data_is_kept_too(mnist):
    dataset = Subset(mnist(), [5, 3, 8])
    kept = loader(dataset, NORMALIZED, in_memory="auto")
    assert kept.dataset.is_batched
    assert_same_batches(kept, loader(dataset, NORMALIZED))


def test_random_transforms_over_memory_draw_anew_for_every_sample_and_epoch(mnist):
    steps = (*NORMALIZED, v2.RandomAffine(30))
    kept = loader(mnist(), steps, in_memory="auto", validation_split=580)
    assert kept.in_memory
    assert not kept.dataset.is_batched
    epochs = [list(kept.batches(epoch * 5, 5)) for epoch in range(2)]
    read = loader(mnist(), steps, validation_split=580)
    assert_same_batches(epochs[0], list(read.batches(0, 5)))
    assert_same_batches(epochs[1], list(read.batches(5, 5)))
    by_target = [torch.cat([x for x, _ in epoch]).sum((1, 2, 3)).sort().values for epoch in epochs]
    assert not torch.isclose(*by_target).any()


def test_a_transform_that_works_in_place_does_not_change_what_is_kept():
    kept = loader(Listed((torch.zeros(1), 0)), [lambda x: x.add_(1)], in_memory=True)
    assert kept.dataset.sample_transforms
    assert [inputs.item() for inputs, _ in kept.batches(0, 3)] == [1, 1, 1]


def test_a_dataset_that_would_fill_the_memory_is_read_and_must_not_be_kept(monkeypatch):
    dataset = Listed(*[(torch.zeros(2**18), 0)] * 4)  # 4 MiB
    monkeypatch.setattr(in_memory_module, "free_memory", lambda device: 8 * 2**20)
    assert loader(dataset, in_memory="auto").told.endswith("they would take 0.0 GiB of 0.0 free")
    assert loader(dataset, in_memory=True).in_memory
    monkeypatch.setattr(in_memory_module, "free_memory", lambda device: 17 * 2**20)
    assert loader(dataset, in_memory="auto").in_memory
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert not loader(dataset, in_memory="auto").in_memory
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    with pytest.raises(DataError, match="they would take"):
        loader(dataset, in_memory=True)
