"""MixUp and CutMix: train on images, and their targets, mixed within a batch."""

from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat

from base import Callback
from base.errors import UsageError
from trainer.batches import input_and_target
from trainer.trainer import Trainer


class _Mixing(Callback):
    """Mixes batches of float images (B, C, H, W) and class numbers (B,), each with probability `p`.

    The loss gets targets (B, K) of probabilities; metrics get the class that each sample is mostly
    made of. `alpha` is that of the Beta distribution of the shares: the smaller, the less is mixed.
    A batch that another callback has mixed stays as it is, so several with a `p` take turns. Draws
    come from torch's generator of the rank, which a checkpoint holds.

    Raises:
        UsageError: the loss does not take such targets, or a batch is of another kind.
    """

    def __init__(
        self,
        num_classes: Annotated[int, Field(ge=2)],
        alpha: PositiveFloat = 1.0,
        p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    ) -> None:
        from torchvision.transforms import v2  # only for those who mix: it takes a second

        self.name = type(self).__name__
        self.mix = getattr(v2, self.name)(num_classes=num_classes, alpha=alpha)
        self.num_classes, self.p = num_classes, p

    def on_fit_start(self, trainer: Trainer) -> None:
        scores = torch.zeros(2, self.num_classes, device=trainer.device)
        try:
            trainer.loss(scores, scores.softmax(dim=1))
        except (RuntimeError, ValueError, IndexError) as error:
            raise UsageError(
                f"{self.name}: the loss does not take targets (B, {self.num_classes}) of "
                f"probabilities, as cross_entropy does: {error}"
            ) from error

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        images, target = input_and_target(batch)
        if hasattr(target, "labels"):
            return batch
        if self.p < 1 and torch.rand(()) >= self.p:
            return batch
        try:
            images, mixed = self.mix(images, target)
        except (RuntimeError, ValueError) as error:  # of another kind, or beyond num_classes
            raise UsageError(
                f"{self.name}: expected float images (B, C, H, W) and class numbers (B,) below "
                f"{self.num_classes}: {error}"
            ) from error
        mixed.labels = mixed.argmax(dim=1)  # for `Trainer.update_metrics`
        return images, mixed


class MixUp(_Mixing):
    """Blends two images, each with its share. Zhang et al., 2017, https://arxiv.org/abs/1710.09412"""


class CutMix(_Mixing):
    """Pastes a piece of an image into another. Yun et al., 2019, https://arxiv.org/abs/1905.04899"""
