"""Random draws that belong to one sample of one epoch, whatever worker or batch it is read in.

A key is a 64-bit integer made of (seed, epoch, index). Per-sample code gets the global generators
seeded with it; code over a whole batch turns a tensor of keys into uniform draws at once.
The mixing function is SplitMix64's (Steele et al., 2014, doi:10.1145/2660193.2660195).
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
SHIFTS_AND_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def derive_seed(*numbers: int) -> int:
    """Return a 64-bit key of some whole numbers; equal numbers give equal keys."""
    key = 0
    for number in numbers:
        key = (key + number + GOLDEN) & MASK
        for shift, factor in SHIFTS_AND_FACTORS:
            key = ((key ^ (key >> shift)) * factor) & MASK
    return key


def sample_keys(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Return `derive_seed(seed, epoch, index)` of indices (B,) int64, on their device."""
    return next_keys(indices + _signed(derive_seed(seed, epoch) + GOLDEN))


def uniform(keys: Tensor, num_draws: int) -> Tensor:
    """Return draws from [0, 1), (B, num_draws) float32, that depend on each sample's key alone."""
    counters = torch.arange(1, num_draws + 1, device=keys.device)
    bits = next_keys(keys[:, None] + counters * _signed(GOLDEN))
    return _shift_right(bits, 40).to(torch.float32) * 2**-24


def next_keys(keys: Tensor) -> Tensor:
    """Return other keys of the same shape, whose draws have nothing to do with those of `keys`."""
    for shift, factor in SHIFTS_AND_FACTORS:
        keys = (keys ^ _shift_right(keys, shift)) * _signed(factor)
    return keys


def _shift_right(keys: Tensor, bits: int) -> Tensor:
    return (keys >> bits) & (2 ** (64 - bits) - 1)  # int64 shifts copy the sign bit: clear it


def _signed(number: int) -> int:
    number &= MASK
    return number - 2**64 if number >= 2**63 else number


def seed_global_generators(key: int) -> None:
    """Seed python's, numpy's and torch's CPU generator with a key."""
    key &= MASK
    random.seed(key)
    np.random.seed(key % 2**32)
    torch.default_generator.manual_seed(key)


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """Compute on one thread, since sums depend on the number, and give the generators back."""
    num_threads = torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
