"""Augmentations of whole batches: every sample has draws of its own."""

import re

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from base.data.sample_rng import sample_keys, uniform
from base.registry import TRANSFORMS
from base.registry.build import check
from data_loader.transforms import RandomAffine2d, RandomFlip, RandomShift, affine


def keys_of(count: int) -> Tensor:
    """Return the keys of some samples of an epoch."""
    return sample_keys(1, 2, torch.arange(count))


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
    images, keys = torch.rand(shape), keys_of(shape[0])
    shifts = (uniform(keys, 2) * (2 * pixels + 1)).long().tolist()
    expected = [
        shift_one(image, pixels, down, right, fill)
        for image, (down, right) in zip(images, shifts, strict=True)
    ]
    assert torch.equal(RandomShift(pixels, fill)(images, keys), torch.stack(expected))


def test_every_shift_comes_about_as_often():
    places = torch.zeros(4000, 1, 5, 5)
    places[:, :, 2, 2] = 1
    shifted = RandomShift(1)(places, keys_of(4000))
    counts = shifted.sum(0)[0, 1:4, 1:4]
    assert counts.sum() == 4000
    assert ((counts - 4000 / 9).abs() < 100).all()  # 5 deviations


@pytest.mark.parametrize(
    "transform", [RandomShift(3), RandomFlip(), RandomAffine2d(30, 0.2, 0.3, 10, fill=-0.4)]
)
def test_a_result_depends_bitwise_on_the_image_and_its_key_alone(transform):
    images, keys = torch.rand(9, 3, 11, 7), keys_of(9)
    together = transform(images, keys)
    alone = [transform(images[i : i + 1], keys[i : i + 1]) for i in range(9)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(transform(images[[4, 2]], keys[[4, 2]]), together[[4, 2]])


# --- RandomFlip ---------------------------------------------------------------------------------


def test_a_sure_flip_mirrors_every_image_and_an_impossible_one_none():
    images = torch.rand(50, 3, 4, 5)
    assert torch.equal(RandomFlip(1)(images, keys_of(50)), images.flip(-1))
    assert torch.equal(RandomFlip(0)(images, keys_of(50)), images)


def test_a_flip_mirrors_a_share_p_of_the_images():
    images = torch.tensor([0.0, 1.0]).expand(4000, 1, 1, 2)
    flipped = RandomFlip(0.3)(images, keys_of(4000))
    share = flipped[:, 0, 0, 0].mean().item()
    assert share == pytest.approx(0.3, abs=0.036)  # 5 deviations


# --- RandomAffine2d -----------------------------------------------------------------------------


def moved(images: Tensor, *, fill: float = 0.0, **parameters: float) -> Tensor:
    """Return images (B, C, H, W), all through the same affine transform."""
    names = ("degrees", "right", "down", "growth", "shear")
    changes = torch.tensor([parameters.get(name, 0.0) for name in names])
    return affine(images, changes.expand(len(images), 5), fill=fill)


@pytest.mark.parametrize("size", [4, 5])
def test_a_quarter_turn_is_rot90(size):
    images = torch.rand(2, 3, size, size)
    turned = moved(images, degrees=90.0, fill=-1.0)
    torch.testing.assert_close(turned, images.rot90(-1, dims=(2, 3)), atol=1e-5, rtol=0)


def test_whole_pixels_of_translation_are_a_shift_with_fill_moving_in():
    images = torch.rand(2, 3, 5, 8)
    expected = torch.stack([shift_one(image, 0, 1, -2, -0.4) for image in images])
    found = moved(images, right=2 / 8, down=-1 / 5, fill=-0.4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found[:, :, :, 0] == torch.tensor(-0.4)).all()  # exactly the fill, outside


def test_twice_the_size_shows_the_middle_twice_as_large():
    images = torch.zeros(1, 1, 8, 8)
    images[:, :, 3:5, 3:5] = 1
    larger = moved(images, growth=1.0)
    assert larger.sum().item() == pytest.approx(4 * images.sum().item())
    assert larger[0, 0, 3:5, 3:5].eq(1).all()


@pytest.mark.parametrize("fill", [0.0, -0.4242])
@pytest.mark.parametrize("shape", [(12, 3, 20, 20), (12, 1, 17, 30)])
def test_it_is_torchvisions_affine_of_each_image_by_its_own_draws(shape, fill):
    images, keys = torch.rand(shape), keys_of(shape[0])
    found = RandomAffine2d(40, 0.2, 0.3, 15, fill)(images, keys)
    height, width = shape[2:]
    spread = torch.tensor([40, 0.2 * width, 0.2 * height, 0.3, 15])
    parameters = ((2 * uniform(keys, 5) - 1) * spread).tolist()
    for image, result, (degrees, right, down, growth, shear) in zip(
        images, found, parameters, strict=True
    ):
        expected = functional.affine(
            image - fill, degrees, [right, down], 1 + growth, [shear, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )  # fmt: skip
        torch.testing.assert_close(result, expected + fill, atol=1e-4, rtol=0)


def test_draws_fill_their_ranges_evenly():
    """A ramp along each axis shows where the pixels come from, and so what was drawn."""
    line = torch.arange(21.0) - 10
    ramps = torch.stack(torch.meshgrid(line, line, indexing="xy")).expand(4000, 2, 21, 21)
    seen = RandomAffine2d(30, 0.1, 0.2, 10)(ramps, keys_of(4000))
    origin = seen[:, :, 10, 10]
    matrix = torch.stack([seen[:, :, 10, 11] - origin, seen[:, :, 11, 10] - origin], dim=2)
    (a, b), (c, d) = matrix.inverse().permute(1, 2, 0)  # to where they go: (4000,) each
    scale = (a * d - b * c).sqrt()
    shear = -((a * b + c * d) / scale**2).atan()
    shift = -torch.linalg.solve(matrix, origin) / 21
    drawn = {
        "angle": (torch.atan2(c, a).rad2deg(), -30, 30),
        "scale": (scale, 0.8, 1.2),
        "shear": (shear.rad2deg(), -10, 10),
        "right": (shift[:, 0], -0.1, 0.1),
        "down": (shift[:, 1], -0.1, 0.1),
    }
    for name, (values, low, high) in drawn.items():
        places = (values - low) / (high - low)
        assert places.min() > -1e-3, name
        assert places.max() < 1 + 1e-3, name
        counts = places.histc(4, 0, 1)
        assert ((counts - 1000).abs() < 137).all(), name  # 5 deviations
    table = torch.stack([values for values, *_ in drawn.values()])
    assert (table.corrcoef() - torch.eye(5)).abs().max() < 0.08  # and of each other freely


def test_equal_keys_give_equal_images_and_others_others():
    images, transform = torch.rand(1, 1, 9, 9).expand(6, 1, 9, 9), RandomAffine2d(20, 0.1, 0.1, 5)
    once, again = transform(images, keys_of(6)), transform(images, keys_of(6))
    assert torch.equal(once, again)
    assert len(once.unique(dim=0)) == 6
    assert len(transform(images, keys_of(1).expand(6)).unique(dim=0)) == 1


def test_no_ranges_change_nothing():
    images = torch.rand(3, 2, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(RandomAffine2d(0)(images, keys_of(3)), images)
    assert torch.equal(RandomShift(0)(images, keys_of(3)), images)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "RandomShift", "args": {"pixels": -1}}, "args.pixels: .*-1"),
        ({"type": "RandomFlip", "args": {"p": 1.1}}, r"args.p: .*1\.1"),
        ({"type": "RandomAffine2d", "args": {"degrees": 360}}, "args.degrees: .*360"),
        ({"type": "RandomAffine2d", "args": [10, 1]}, "args.1: .*1"),
        ({"type": "RandomAffine2d", "args": {"degrees": 1, "shear": 90}}, "args.shear: .*90"),
    ],
)
def test_a_range_that_makes_no_sense_is_an_issue_of_the_config(node, words):
    [issue] = check(node, TRANSFORMS, path=("transform",))
    assert re.match(f"transform.{words}", str(issue))
