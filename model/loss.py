"""Losses: every public function (output, target) and class here can be named in a config."""

import torch.nn.functional as F
from torch import Tensor


def nll_loss(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean negative log-likelihood of log-probabilities (B, K), targets (B,).

    `weight` (K,) is how much each class counts.
    """
    return F.nll_loss(output, target, weight)
