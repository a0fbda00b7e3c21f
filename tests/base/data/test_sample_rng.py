"""Keys and draws that belong to one sample of one epoch."""

import random

import numpy as np
import pytest
import torch

from base.data.sample_rng import (
    as_in_a_worker,
    derive_seed,
    sample_keys,
    seed_global_generators,
    uniform,
)
from base.runtime.device import seed_everything


def signed(key: int) -> int:
    return key - 2**64 if key >= 2**63 else key


@pytest.mark.parametrize("seed", [0, 123, 2**63 - 1])
def test_the_keys_of_a_tensor_are_the_mixed_numbers(seed):
    indices = torch.tensor([0, 1, 2, 53_999, 2**40])
    expected = [signed(derive_seed(seed, 7, index)) for index in indices.tolist()]
    assert sample_keys(seed, 7, indices).tolist() == expected


def test_mixing_is_splitmix64():
    # the first output of the reference implementation for the state 1234567
    assert derive_seed(1234567) == 6457827717110365317


def test_no_two_of_many_keys_are_equal():
    keys = {
        derive_seed(seed, epoch, index)
        for seed in range(10)
        for epoch in range(10)
        for index in range(99)
    }
    assert len(keys) == 10 * 10 * 99


def test_draws_are_uniform():
    draws = uniform(sample_keys(1, 2, torch.arange(100_000)), 2)
    assert draws.shape == (100_000, 2)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws, bins=50, min=0, max=1)
    assert ((counts / 4000 - 1).abs() < 0.1).all()  # 6 deviations of a bin of 4,000
    assert torch.corrcoef(draws.T)[0, 1].abs() < 0.02
    assert torch.corrcoef(torch.stack([draws[1:, 0], draws[:-1, 0]]))[0, 1].abs() < 0.02


def test_a_draw_depends_on_the_sample_alone_and_not_on_its_batch():
    together = uniform(sample_keys(1, 2, torch.arange(10)), 3)
    alone = torch.cat([uniform(sample_keys(1, 2, torch.tensor([index])), 3) for index in range(10)])
    assert torch.equal(together, alone)
    assert torch.equal(together[:, :1], uniform(sample_keys(1, 2, torch.arange(10)), 1))


def test_epochs_and_seeds_draw_differently():
    indices = torch.arange(100)
    first = uniform(sample_keys(1, 2, indices), 1)
    assert not torch.isclose(first, uniform(sample_keys(1, 3, indices), 1)).all()
    assert not torch.isclose(first, uniform(sample_keys(2, 2, indices), 1)).all()


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_a_key_seeds_every_global_generator():
    with as_in_a_worker():
        seed_global_generators(2**64 - 1)
        first = draw()
        seed_global_generators(2**64 - 1)
        assert draw() == first
        seed_global_generators(2**64 - 2)
        assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_the_generators_are_given_back_even_after_an_error():
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with pytest.raises(KeyError), as_in_a_worker():
        raise KeyError(draw())
    assert draw() == expected
