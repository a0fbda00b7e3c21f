"""Augmentations of whole batches: every sample has draws of its own."""

import pytest
import torch
from torch import Tensor

from base.sample_rng import sample_keys, uniform
from data_loader.transforms import RandomShift


def shift_one(image: Tensor, pixels: int, down: int, right: int, fill: float) -> Tensor:
    """Return an image (C, H, W) as seen through a window moved over its padding."""
    height, width = image.shape[1:]
    shifted = torch.full_like(image, fill)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y + down - pixels, x + right - pixels
            if 0 <= from_y < height and 0 <= from_x < width:
                shifted[:, y, x] = image[:, from_y, from_x]
    return shifted


@pytest.mark.parametrize(
    ("shape", "pixels", "fill"), [((9, 3, 5, 7), 2, 0.0), ((9, 1, 4, 4), 1, -0.5)]
)
def test_it_shifts_each_image_by_its_own_draws(shape, pixels, fill):
    images, keys = torch.rand(shape), sample_keys(1, 2, torch.arange(shape[0]))
    shifts = (uniform(keys, 2) * (2 * pixels + 1)).long().tolist()
    expected = [
        shift_one(image, pixels, down, right, fill)
        for image, (down, right) in zip(images, shifts, strict=True)
    ]
    assert torch.equal(RandomShift(pixels, fill)(images, keys), torch.stack(expected))


def test_every_shift_comes_about_as_often():
    places = torch.zeros(4000, 1, 5, 5)
    places[:, :, 2, 2] = 1
    shifted = RandomShift(1)(places, sample_keys(1, 2, torch.arange(4000)))
    counts = shifted.sum(0)[0, 1:4, 1:4]
    assert counts.sum() == 4000
    assert ((counts - 4000 / 9).abs() < 100).all()  # 5 deviations


def test_a_shift_does_not_depend_on_the_batch_it_is_made_in():
    images, keys = torch.rand(6, 1, 8, 8), sample_keys(1, 2, torch.arange(6))
    shift = RandomShift(3)
    alone = [shift(images[i : i + 1], keys[i : i + 1]) for i in range(6)]
    assert torch.equal(shift(images, keys), torch.cat(alone))
    assert torch.equal(shift(images[[4, 2]], keys[[4, 2]]), torch.cat([alone[4], alone[2]]))


def test_no_pixels_change_nothing():
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(RandomShift(0)(images, sample_keys(1, 2, torch.arange(3))), images)
