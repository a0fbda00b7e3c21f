"""Stops a run before a loss that is not finite reaches the weights."""

import math

import torch
from torch import Tensor, nn

from base.errors import DivergedError


class FiniteGuard:
    """Looks at every loss before its backward pass.

    On the CPU a look is free, so a bad loss raises at once. On an accelerator it would wait for the
    device; there a flag on the device remembers the first bad step, and a fused optimizer that gets
    it as `found_inf` leaves the weights as they were. `read` raises when the flag is set. Where the
    optimizer is not fused, or `at_once` is asked for, every loss is waited for.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, device: torch.device, at_once: bool
    ) -> None:
        fused = all(group.get("fused") for group in optimizer.param_groups)
        self.is_deferred = device.type != "cpu" and fused and not at_once
        if self.is_deferred:
            self.found_inf = torch.zeros((), device=device)
            self.bad_step = torch.zeros((), device=device)
            optimizer.grad_scale, optimizer.found_inf = None, self.found_inf

    def check(self, component: str, loss: float | Tensor, *, epoch: int, step: int) -> None:
        """Look at a component of a step's loss, detached; both counts start at 1.

        Raises:
            DivergedError: it is not finite and looking was free.
        """
        if self.is_deferred and isinstance(loss, Tensor):
            self.bad_step = torch.where(self.found_inf > 0, self.bad_step, step)
            is_bad = (loss * 0).ne(0)  # NaN is not 0; two kernels, isfinite takes more
            torch.logical_or(self.found_inf, is_bad, out=self.found_inf)
        elif not math.isfinite(loss):
            raise _diverged(f"{component} is {float(loss)}", epoch=epoch, step=step)

    def read(self, *, epoch: int) -> None:
        """Wait for the device; raise DivergedError with the first step whose loss is not finite."""
        if self.is_deferred and self.found_inf.item():
            raise _diverged("the loss is not finite", epoch=epoch, step=int(self.bad_step.item()))


def _diverged(what: str, *, epoch: int, step: int) -> DivergedError:
    return DivergedError(
        f"training diverged: {what} in epoch {epoch}, step {step}; the weights are those before "
        "it. Lower the learning rate, or set trainer.clip_grad_norm"
    )


def check_model_finite(model: nn.Module, *, epoch: int, step: int) -> None:
    """Raise DivergedError, naming the first weight or buffer that is not finite."""
    tensors = model.state_dict()
    is_finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    if not all(is_finite):
        name = list(tensors)[is_finite.index(False)]
        raise DivergedError(
            f"training diverged: {name} is not finite in epoch {epoch}, step {step}; "
            "the last good checkpoint is intact"
        )
