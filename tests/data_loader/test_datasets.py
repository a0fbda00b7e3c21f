"""The embedded digits."""

import torch
from sklearn.datasets import load_digits

from base import BaseDataLoader
from data_loader.datasets import Digits


def test_digits_are_images_in_the_unit_range_with_their_classes():
    digits = Digits()
    image, target = digits[0]
    assert image.shape == (1, 8, 8)
    assert image.dtype == torch.float32
    assert target.dtype == torch.int64
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert digits.classes == [str(number) for number in range(10)]
    assert digits.targets.unique().tolist() == list(range(10))


def test_a_fixed_fifth_is_for_testing_and_no_sample_is_in_both_parts():
    train, test = Digits(), Digits(train=False)
    assert (len(train), len(test)) == (1437, 360)
    together = torch.cat([train.images, test.images]).flatten(1)
    everything = torch.from_numpy(load_digits().images / 16).float().flatten(1)
    assert sorted(together.tolist()) == sorted(everything.tolist())
    assert torch.equal(Digits(train=False).images, test.images)
    assert test.targets.bincount().min() > 20


def test_digits_are_kept_in_memory():
    loader = BaseDataLoader(Digits(), 64)
    told = loader.prepare([], in_memory="auto", device=torch.device("cpu"), training=True)
    assert told.startswith("kept in memory")
