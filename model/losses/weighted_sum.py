"""A sum of losses, each logged by its name."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from base.errors import UsageError
from base.runtime.device import map_tensors


class WeightedSum(nn.Module):
    """Several losses of the same output and target, by name, each times its weight (default 1).

    The trainer adds them up and logs each by its name.
    """

    def __init__(
        self, losses: dict[str, Callable], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        weights = dict(weights or {})
        if wrong := [name for name, loss in losses.items() if not callable(loss)]:
            raise UsageError(f"WeightedSum: {wrong[0]}: expected {{type: NAME}}")
        if not losses:
            raise UsageError("WeightedSum: losses: expected one or more, found none")
        if unknown := weights.keys() - losses.keys():
            raise UsageError(f"WeightedSum: a weight for {min(unknown)!r}, which is no loss of it")
        self.losses = losses
        self.parts = nn.ModuleList(x for x in losses.values() if isinstance(x, nn.Module))
        self.weights = {name: weights.get(name, 1.0) for name in losses}

    @staticmethod
    def columns(args: Any) -> Iterable[str]:
        """Return the columns that a node's args add to the log, those of its losses."""
        losses = args.get("losses") if isinstance(args, dict) else args[0] if args else None
        return losses if isinstance(losses, dict) else ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WeightedSum":
        """Move also what functions among the losses are bound with, such as class weights."""
        self.losses = {
            name: partial(loss.func, **map_tensors(fn, loss.keywords))
            if isinstance(loss, partial)
            else loss
            for name, loss in self.losses.items()
        }
        return super()._apply(fn, recurse)

    def forward(self, output: Any, target: Any) -> dict[str, Tensor]:
        """Return the weighted losses by name."""
        return {
            name: self.weights[name] * loss(output, target) for name, loss in self.losses.items()
        }
