"""Augmentations of whole batches in which every sample has draws of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from base.registry import TRANSFORMS
from base.sample_rng import uniform


@TRANSFORMS.register()
class RandomShift:
    """Shifts each image of a batch (B, C, H, W) by up to `pixels` along both axes.

    What moves in is `fill`, a value in the images' own scale. Quicker than one crop per sample, and
    the same for any batch size or worker: the draws depend on the samples' keys alone.
    """

    takes_keys = True

    def __init__(self, pixels: int, fill: float = 0.0) -> None:
        self.pixels = pixels
        self.fill = fill

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        size, (height, width) = len(images), images.shape[-2:]
        padded = F.pad(images, [self.pixels] * 4, value=self.fill)
        shifts = (uniform(keys, 2) * (2 * self.pixels + 1)).long()  # (B, 2), of 0 to 2 * pixels
        rows = shifts[:, :1] + torch.arange(height, device=images.device)  # (B, H)
        columns = shifts[:, 1:] + torch.arange(width, device=images.device)  # (B, W)
        batch = torch.arange(size, device=images.device)[:, None, None]
        return padded.movedim(1, -1)[batch, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
