"""The step of an optimizer such as LBFGS, which asks for the loss and its gradient repeatedly."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from base.errors import DivergedError
from base.runtime import distributed

if TYPE_CHECKING:
    from trainer.trainer import Trainer


def step_with_closure(trainer: "Trainer", batch: Any) -> None:
    """Step on a batch; it counts once for losses and metrics however often it is looked at.

    Raises:
        DivergedError: a loss is not finite; the weights are those before the step.
    """

    def closure() -> Tensor:
        trainer.optimizer.zero_grad()
        loss = trainer.backward(batch)
        trainer.tracker.enabled = False
        return distributed.mean_over_ranks(loss)

    before = [parameter.detach().clone() for parameter in trainer.parameters]
    try:
        trainer.optimizer.step(closure)
    except DivergedError:  # at a point that the line search only tried
        for parameter, value in zip(trainer.parameters, before, strict=True):
            parameter.data.copy_(value)
        raise
    finally:
        trainer.tracker.enabled = True
    trainer.optimizer.zero_grad()
