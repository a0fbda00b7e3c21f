"""Batches of transformed samples, with draws that belong to each of them."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset
from torchvision.transforms import v2

from base.base_data_loader import BaseDataLoader
from base.data import batch_dataset
from base.data.sample_rng import sample_keys, uniform
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


# --- transforms -----------------------------------------------------------------------------------


def test_transforms_apply_to_the_first_element_in_order():
    made = loader(
        Listed((1.0, 1.0), (2.0, 2.0)), [lambda x: x + 1, lambda x: x * 10], shuffle=False
    )
    inputs, target = next(iter(made))
    assert inputs.tolist() == [20.0, 30.0]
    assert target.tolist() == [1.0, 2.0]


class AddDraw:
    takes_keys = True

    def __call__(self, batch: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return batch + uniform(keys, 1)[:, 0]


def test_a_transform_of_batches_gets_the_keys_of_the_samples_indices():
    dataset = Listed(*((0.0, index) for index in range(10)))
    for in_memory in (False, True):
        made = loader(dataset, [AddDraw()], in_memory=in_memory, validation_split=3)
        seed = made.dataset.seed
        for inputs, indices in made.batches(len(made), len(made)):  # those of epoch 1
            expected = uniform(sample_keys(seed, 1, indices), 1)[:, 0]
            assert torch.equal(inputs, expected.double())


# --- samples of any kind --------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [None, (None, 1), (object(), 1), (np.array(["a"]), 1)])
def test_samples_that_make_no_batch_are_a_data_error(sample):
    made = loader(Listed(sample, sample), in_memory="auto")
    with pytest.raises(DataError, match=r"samples of Listed cannot be put into a batch: .*found"):
        next(iter(made))


def test_samples_of_different_shapes_are_a_data_error_unless_they_come_one_by_one():
    dataset = Listed((torch.ones(2), 1), (torch.ones(3), 1), (torch.ones(2), 1))
    made = loader(dataset, in_memory="auto")
    assert made.told.endswith("of one shape")
    with pytest.raises(DataError, match=r"cannot be put into a batch: stack expects .* equal size"):
        next(iter(made))
    assert len(list(loader(dataset, in_memory="auto", batch_size=1))) == 3


def test_a_dataset_of_images_without_a_transform_says_that_it_makes_no_batch(mnist):
    with pytest.raises(DataError, match=r"samples of MNIST .* found <class 'PIL\.Image\.Image'>"):
        next(iter(loader(mnist(), in_memory="auto")))


@pytest.mark.parametrize("sample", [None, torch.ones(2), {"x": 1}, ()])
def test_transforms_of_what_is_no_tuple_are_a_data_error(sample):
    for in_memory in (False, "auto"):
        with pytest.raises(DataError, match=r"transforms need samples \(input, ...\), found"):
            next(iter(loader(Listed(sample), [v2.Identity()], in_memory=in_memory)))
    if sample is not None:
        with pytest.raises(DataError, match=r"transforms need samples \(input, ...\), found"):
            next(iter(loader(Listed(sample), [AddDraw()])))


def test_the_error_of_a_collate_function_of_the_project_is_its_own():
    def collate(samples):
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        next(iter(loader(Listed((1, 2)), collate_fn=collate)))


# --- draws ----------------------------------------------------------------------------------------


def test_two_transforms_of_batches_draw_apart():
    samples = [(torch.zeros(1), index) for index in range(2000)]
    seen = []

    class Draw:
        takes_keys = True

        def __call__(self, x, keys):
            seen.append(uniform(keys, 1)[:, 0])
            return x

    next(iter(loader(Listed(*samples), [Draw(), Draw()], batch_size=2000)))
    assert abs(torch.corrcoef(torch.stack(seen))[0, 1]) < 0.1


@pytest.mark.parametrize("draws", [False, True])
def test_generators_are_seeded_only_where_something_may_draw(draws, monkeypatch):
    keys = []
    monkeypatch.setattr(batch_dataset, "seed_global_generators", keys.append)
    steps = [v2.RandomHorizontalFlip()] if draws else [v2.CenterCrop(1)]
    list(loader(Listed(*[(torch.zeros(1, 2, 2), n) for n in range(8)]), steps))
    assert len(set(keys)) == (8 if draws else 0)


def test_what_a_gpu_shall_copy_meanwhile_is_pinned(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    made = loader(TensorDataset(torch.zeros(8, 2), torch.zeros(8)), in_memory=True)
    assert [len(batch) for batch in made] == [2, 2]
    assert not pinned
    made.dataset.pin_memory = True
    assert len(list(made)) == 2
    assert len(pinned) == 2
