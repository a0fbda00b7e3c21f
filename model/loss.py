"""Losses: every public function (output, target) and class here can be named in a config."""

import torch.nn.functional as F
from torch import Tensor


def nll_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of log-probabilities (B, K), targets (B,)."""
    return F.nll_loss(output, target)
