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
        height, width = images.shape[-2:]
        padded = F.pad(images, [self.pixels] * 4, value=self.fill)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, shifts, shifts, H, W)
        down, right = (uniform(keys, 2) * windows.shape[2]).long().unbind(dim=1)  # (B,) each
        return windows[torch.arange(len(images), device=images.device), :, down, right]
