"""A layer whose backward pass is not the derivative of its forward pass."""

from typing import Any

import torch
from torch import Tensor, nn


class SignFunction(torch.autograd.Function):
    """The sign of each value, -1 or 1, with the straight-through gradient.

    Its derivative is 0 almost everywhere, so nothing before it would learn. The gradient is passed
    on as it is where the input lies within -1 and 1, and is 0 elsewhere (Hubara et al., 2016,
    https://arxiv.org/abs/1602.02830).
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return torch.where(inputs < 0, -1.0, 1.0).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        return gradient * (inputs.abs() <= 1)


class Sign(nn.Module):
    """Binary activations: (...) -> (...), each -1 or 1."""

    def forward(self, inputs: Tensor) -> Tensor:
        return SignFunction.apply(inputs)
