"""Augmentations of whole batches in which every sample has draws of its own."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt
from torch import Tensor

from base.data.sample_rng import uniform
from base.registry import TRANSFORMS

Share = Annotated[float, Field(ge=0, lt=1)]


@TRANSFORMS.register()
class RandomShift:
    """Shifts each image of a batch (B, C, H, W) by up to `pixels` along both axes.

    What moves in is `fill`, a value in the images' own scale. Quicker than one crop per sample, and
    the same for any batch size or worker: the draws depend on the samples' keys alone.
    """

    takes_keys = True

    def __init__(self, pixels: NonNegativeInt, fill: float = 0.0) -> None:
        self.pixels = pixels
        self.fill = fill

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, [self.pixels] * 4, value=self.fill)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, shifts, shifts, H, W)
        down, right = (uniform(keys, 2) * windows.shape[2]).long().unbind(dim=1)  # (B,) each
        return windows[torch.arange(len(images), device=images.device), :, down, right]


@TRANSFORMS.register()
class RandomFlip:
    """Mirrors each image of a batch (B, C, H, W), left to right, with probability `p`."""

    takes_keys = True

    def __init__(self, p: Annotated[float, Field(ge=0, le=1)] = 0.5) -> None:
        self.p = p

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        is_flipped = uniform(keys, 1)[:, :, None, None] < self.p  # (B, 1, 1, 1)
        return torch.where(is_flipped, images.flip(-1), images)


@TRANSFORMS.register()
class RandomAffine2d:
    """Rotates, moves, scales and shears each image of a float batch (B, C, H, W) about its centre.

    Drawn evenly are the angle within +-`degrees`, the shift along each axis within +-`translate` of
    the size, the factor within 1 +- `scale` and the shear along x within +-`shear` degrees. What
    moves in is `fill`, a value in the images' own scale.
    """

    takes_keys = True

    def __init__(
        self,
        degrees: Annotated[float, Field(ge=0, lt=360)],
        translate: Share = 0.0,
        scale: Share = 0.0,
        shear: Annotated[float, Field(ge=0, lt=90)] = 0.0,
        fill: float = 0.0,
    ) -> None:
        self.ranges = (degrees, translate, translate, scale, shear)
        self.fill = fill

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        draws = (2 * uniform(keys, 5) - 1).to(images.dtype)  # from [-1, 1)
        return affine(images, draws * draws.new_tensor(self.ranges), fill=self.fill)


def affine(images: Tensor, changes: Tensor, *, fill: float) -> Tensor:
    """Return images (B, C, H, W) sheared, scaled, rotated clockwise and moved.

    `changes` (B, 5) are of each image the degrees of its turn, the shares of its size to the right
    and down, its growth (0.1: a tenth larger) and the degrees of shear. It is the bilinear
    `torchvision.transforms.v2.functional.affine`, with parameters for each image.
    """
    height, width = images.shape[-2:]
    degrees, right, down, growth, shear = changes[:, :, None, None].unbind(dim=1)  # (B, 1, 1)
    x = _centered(width, images) - right * width  # (B, 1, W) pixels
    y = _centered(height, images)[:, None] - down * height  # (B, H, 1)
    angle, slope, scale = degrees.deg2rad(), shear.deg2rad().tan(), 1 + growth
    cos, sin = angle.cos() / scale, angle.sin() / scale
    from_x = (cos - slope * sin) * x + (sin + slope * cos) * y  # (B, H, W)
    from_y = cos * y - sin * x
    grid = torch.stack([from_x * (2 / width), from_y * (2 / height)], dim=-1)
    # zeros are what grid_sample moves in, so the fill is made zero
    return F.grid_sample(images - fill, grid, align_corners=False) + fill


def _centered(size: int, like: Tensor) -> Tensor:
    """Return the places of pixels, 0 being the centre, (size,)."""
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
