"""Metrics: every public function (output, target) and class here can be named in a config.

Return the batch's value as a tensor of one element, or mark the function `@per_sample` and return a
value for each sample. A Python float is allowed, but on a GPU it makes every step wait.
"""

from torch import Tensor

from base.runtime.metric_tracker import per_sample


@per_sample
def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Tell for each sample whether its highest score (B, K) is the target's (B,): (B,) bool."""
    return output.argmax(dim=1) == target


@per_sample
def top_k_acc(output: Tensor, target: Tensor, k: int = 3) -> Tensor:
    """Tell for each sample whether its target (B,) is among the k highest scores (B, K)."""
    top = output.topk(k, dim=1).indices  # (B, k)
    return (top == target[:, None]).any(dim=1)
