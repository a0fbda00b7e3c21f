"""Metrics: every public function (output, target) and class here can be named in a config.

Return a tensor: a Python float is allowed, but on a GPU it makes every step wait for the device.
"""

from torch import Tensor


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Return the share of samples whose highest score (B, K) is the target's (B,), in [0, 1]."""
    return (output.argmax(dim=1) == target).float().mean()


def top_k_acc(output: Tensor, target: Tensor, k: int = 3) -> Tensor:
    """Return the share of samples whose target (B,) is among the k highest scores (B, K)."""
    top = output.topk(k, dim=1).indices  # (B, k)
    return (top == target[:, None]).any(dim=1).float().mean()
