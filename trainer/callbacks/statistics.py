"""Show norms of gradients, weights and updates, and histograms, in TensorBoard."""

import logging
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from base import Callback
from base.runtime import distributed
from trainer.trainer import Trainer

log = logging.getLogger("train")
NUM_BINS = 64  # TensorBoard shows 30 of them


class Statistics(Callback):
    """Shows norms at each log step, and histograms every `histograms` epochs; 0 is never.

    The norms are those of the gradient as `trainer.optimizer` takes it (clipped, unscaled), of the
    weights before the step, and of the step over the weights, `update_ratio`, which is often best
    near 0.001 (https://cs231n.github.io/neural-networks-3/#ratio): of all trained parameters, with
    `per_layer` also of each. A log step costs a copy of the weights. LBFGS, which asks for
    gradients within its step, has no gradient norm.

    Histograms are of the epoch's last step: its gradients, the weights after it, and the outputs
    of each layer for its last batch; a compiled model does not give those.
    """

    def __init__(self, per_layer: bool = False, histograms: NonNegativeInt = 1) -> None:
        self.per_layer, self.histograms = per_layer, histograms
        self.weights: dict[str, Tensor] = {}  # before the step, on a log step
        self.norms: dict[str, Tensor] = {}  # (P,) each, of P parameters
        self.gradients: dict[str, Tensor] = {}
        self.activations: dict[str, Tensor] = {}
        self.hooks: list[Any] = []  # of layers, for their activations
        self.step_hook: Any = None

    def on_fit_start(self, trainer: Trainer) -> None:
        if self.histograms and trainer.config.logger.writers.get("tensorboard") is False:
            log.warning("Statistics: no histograms, since logger.tensorboard is false")
        if distributed.is_main():
            self.step_hook = trainer.optimizer.register_step_pre_hook(
                lambda *_: self._before_step(trainer)
            )

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.step_hook is not None:
            self.step_hook.remove()

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        is_due = self.histograms > 0 and (trainer.epoch + 1) % self.histograms == 0
        is_last = trainer.batch + 1 == trainer.num_batches
        if is_due and is_last and trainer.logger.tensorboard is not None:
            for name, module in trainer.network.named_modules():
                if not any(module.children()):
                    keep = partial(self._keep_output, name or "(model)")
                    self.hooks.append(module.register_forward_hook(keep))
        return batch

    def _keep_output(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            # copied, since the next layer may work in place
            self.activations.setdefault(name, output.detach().clone())

    def _before_step(self, trainer: Trainer) -> None:
        is_last = trainer.batch + 1 == trainer.num_batches
        if not is_last and (trainer.step + 1) % trainer.settings.log_interval:
            return
        parameters = {n: p for n, p in trainer.network.named_parameters() if p.requires_grad}
        self.weights = {name: weight.detach().clone() for name, weight in parameters.items()}
        self.norms = {"weight_norm": _norms(self.weights.values())}
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        if not gradients:
            return
        scale = getattr(trainer.optimizer, "grad_scale", None)  # which a fused one divides by
        scale = 1.0 if scale is None else scale
        nothing = torch.zeros((), device=trainer.device)
        norms = _norms(gradients.get(name, nothing) for name in parameters)
        self.norms["gradient_norm"] = norms / scale
        if self.hooks:
            self.gradients = {name: gradient / scale for name, gradient in gradients.items()}

    def on_step(self, trainer: Trainer) -> None:
        if not (self.weights or self.hooks):
            return
        weights = {name: p.detach() for name, p in trainer.network.named_parameters()}
        if self.weights:
            steps = (weights[name] - weight for name, weight in self.weights.items())
            self._log_norms(trainer, _norms(steps))
            self.weights = {}
        if self.hooks:
            for hook in self.hooks:
                hook.remove()
            kinds = {"weights": weights, "gradients": self.gradients}
            kinds["activations"] = self.activations
            trainer.logger.to_tensorboard(
                lambda board: _add_histograms(board.train_events, kinds, trainer.step)
            )
            self.hooks, self.gradients, self.activations = [], {}, {}

    def _log_norms(self, trainer: Trainer, step_norms: Tensor) -> None:
        rows = torch.stack([step_norms, *self.norms.values()])  # (Q, P)
        rows = torch.cat([rows.norm(dim=1, keepdim=True), rows], dim=1)
        rows[0] /= rows[1]  # update_ratio: the step over the weights
        points = {
            f"{kind}/{name}" if name else f"statistics/{kind}": value
            for kind, row in zip(["update_ratio", *self.norms], rows.tolist(), strict=True)
            for name, value in zip(["", *self.weights], row, strict=True)
            if math.isfinite(value) and (self.per_layer or not name)
        }
        trainer.logger.log_step(points, trainer.step)


def _norms(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.norm().float() for tensor in tensors])


def _add_histograms(events: Any, kinds: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
    for kind, tensors in kinds.items():
        for name, values in tensors.items():
            values = values.to_dense().float()
            finite = values[values.isfinite()].cpu().numpy()
            if finite.size:
                events.add_histogram(f"{kind}/{name}", finite, step, bins=NUM_BINS)
