"""Augmentations of whole batches in which every sample has draws of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from base.data.sample_rng import uniform
from base.errors import UsageError
from base.registry import TRANSFORMS


@TRANSFORMS.register()
class RandomShift:
    """Shifts each image of a batch (B, C, H, W) by up to `pixels` along both axes.

    What moves in is `fill`, a value in the images' own scale. Quicker than one crop per sample, and
    the same for any batch size or worker: the draws depend on the samples' keys alone.

    Raises:
        UsageError: `pixels` is negative.
    """

    takes_keys = True

    def __init__(self, pixels: int, fill: float = 0.0) -> None:
        if pixels < 0:
            raise UsageError(f"pixels is {pixels}, expected 0 or more")
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
    """Mirrors each image of a batch (B, C, H, W), left to right, with probability `p`.

    Raises:
        UsageError: `p` is not within 0 and 1.
    """

    takes_keys = True

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise UsageError(f"p is {p}, expected 0 to 1")
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

    Raises:
        UsageError: a range is negative or too wide.
    """

    takes_keys = True

    def __init__(
        self,
        degrees: float,
        translate: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        fill: float = 0.0,
    ) -> None:
        found = {"degrees": degrees, "translate": translate, "scale": scale, "shear": shear}
        limits = {"degrees": 360, "translate": 1, "scale": 1, "shear": 90}
        wrong = [
            f"{name} is {value}, expected 0 to below {limits[name]}"
            for name, value in found.items()
            if not 0 <= value < limits[name]
        ]
        if wrong:
            raise UsageError("; ".join(wrong))
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear
        self.fill = fill

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        draws = (2 * uniform(keys, 5) - 1).to(images.dtype)  # from [-1, 1)
        angle, right, down, growth, slant = draws.unbind(dim=1)  # (B,) each
        return affine(
            images,
            degrees=angle * self.degrees,
            right=right * self.translate,
            down=down * self.translate,
            scale=1 + growth * self.scale,
            shear=slant * self.shear,
            fill=self.fill,
        )


def affine(
    images: Tensor,
    *,
    degrees: Tensor,
    right: Tensor,
    down: Tensor,
    scale: Tensor,
    shear: Tensor,
    fill: float,
) -> Tensor:
    """Return images (B, C, H, W) sheared, scaled, rotated clockwise and moved, each (B,) its own.

    `shear` is in degrees, `right` and `down` are shares of the size. It is the bilinear
    `torchvision.transforms.v2.functional.affine`, with parameters for each image.
    """
    height, width = images.shape[-2:]
    x = _centered(width, images) - right[:, None, None] * width  # (B, 1, W) pixels
    y = _centered(height, images)[:, None] - down[:, None, None] * height  # (B, H, 1)
    angle, slope = degrees[:, None, None].deg2rad(), shear[:, None, None].deg2rad().tan()
    cos, sin = angle.cos() / scale[:, None, None], angle.sin() / scale[:, None, None]
    from_x = (cos - slope * sin) * x + (sin + slope * cos) * y  # (B, H, W)
    from_y = cos * y - sin * x
    grid = torch.stack([from_x * (2 / width), from_y * (2 / height)], dim=-1)
    # zeros are what grid_sample moves in, so the fill is made zero
    return F.grid_sample(images - fill, grid, align_corners=False) + fill


def _centered(size: int, like: Tensor) -> Tensor:
    """Return the places of pixels, 0 being the centre, (size,)."""
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
