"""How large gradients, weights and updates are, and how weights and activations are spread."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from base import Callback
from base.errors import UsageError
from base.runtime import distributed
from logger.tensorboard_writer import TensorBoardWriter
from trainer.trainer import Trainer

LOG = logging.getLogger("train")
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

    Raises:
        UsageError: `histograms` is below 0.
    """

    def __init__(self, per_layer: bool = False, histograms: int = 1) -> None:
        if histograms < 0:
            raise UsageError(f"Statistics: histograms is {histograms}, expected epochs, or 0")
        self.per_layer, self.histograms = per_layer, histograms
        self.before: dict[str, Tensor] = {}  # the weights, on a log step
        self.norms: dict[str, Tensor] = {}  # (P,) each, of P parameters
        self.gradients: dict[str, Tensor] = {}
        self.activations: dict[str, Tensor] = {}
        self.hooks: list[Any] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        if self.histograms and not trainer.config.logger.tensorboard:
            LOG.warning("Statistics: no histograms, since logger.tensorboard is false")
        self.step_hook = None
        if distributed.is_main():
            self.step_hook = trainer.optimizer.register_step_pre_hook(
                lambda *_: self._before_step(trainer)
            )

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.step_hook is not None:
            self.step_hook.remove()

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        if trainer.batch + 1 == trainer.num_batches and self._shows_histograms(trainer):
            for name, module in trainer.network.named_modules():
                if not any(module.children()):
                    self.hooks.append(module.register_forward_hook(self._keeper(name)))
        return batch

    def _shows_histograms(self, trainer: Trainer) -> bool:
        is_due = self.histograms > 0 and (trainer.epoch + 1) % self.histograms == 0
        return is_due and trainer.logger.tensorboard is not None

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                # copied, since the next layer may work in place
                self.activations.setdefault(name or "(model)", output.detach().clone())

        return keep

    def _before_step(self, trainer: Trainer) -> None:
        is_last = trainer.batch + 1 == trainer.num_batches
        if not is_last and (trainer.step + 1) % trainer.settings.log_interval:
            return
        parameters = {n: p for n, p in trainer.network.named_parameters() if p.requires_grad}
        self.before = {name: weight.detach().clone() for name, weight in parameters.items()}
        self.norms = {"weight_norm": _norms(self.before.values())}
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        if not gradients:
            return
        scale = getattr(trainer.optimizer, "grad_scale", None)  # which a fused one divides by
        scale = 1.0 if scale is None else scale
        nothing = torch.zeros((), device=trainer.device)
        norms = _norms([gradients.get(name, nothing) for name in parameters])
        self.norms["gradient_norm"] = norms / scale
        if self.hooks:
            self.gradients = {name: gradient / scale for name, gradient in gradients.items()}

    def on_step(self, trainer: Trainer) -> None:
        if not (self.before or self.hooks):
            return
        weights = {name: p.detach() for name, p in trainer.network.named_parameters()}
        if self.before:
            steps = [weights[name] - weight for name, weight in self.before.items()]
            self._log_norms(trainer, _norms(steps))
            self.before = {}
        if self.hooks:
            for hook in self.hooks:
                hook.remove()
            kinds = {"weights": weights, "gradients": self.gradients}
            kinds |= {"activations": self.activations}
            trainer.logger.to_tensorboard(lambda board: _show(board, kinds, trainer.step))
            self.hooks, self.gradients, self.activations = [], {}, {}

    def _log_norms(self, trainer: Trainer, step_norms: Tensor) -> None:
        names = ["", *self.before]
        rows = torch.stack([step_norms, *self.norms.values()])  # (Q, P)
        rows = torch.cat([rows.norm(dim=1, keepdim=True), rows], dim=1).tolist()  # the only read
        values = dict(zip(self.norms, rows[1:], strict=True))
        pairs = zip(rows[0], values["weight_norm"], strict=True)
        values["update_ratio"] = [step / weight if weight else None for step, weight in pairs]
        trainer.logger.log_step(
            {
                f"{kind}/{name}" if name else f"statistics/{kind}": value
                for kind, row in values.items()
                for name, value in zip(names, row, strict=True)
                if value is not None and (self.per_layer or not name)
            },
            trainer.step,
        )


def _norms(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.norm().float() for tensor in tensors])


def _show(board: TensorBoardWriter, kinds: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
    for kind, tensors in kinds.items():
        for name, values in tensors.items():
            values = values.to_dense().float()
            finite = values[values.isfinite()].cpu().numpy()
            if finite.size:
                board.train_events.add_histogram(f"{kind}/{name}", finite, step, bins=NUM_BINS)
