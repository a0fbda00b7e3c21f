"""Overfit a single batch: a model that cannot is wired wrongly.

https://karpathy.github.io/2019/04/25/recipe/ has the idea.
"""

import logging

import torch

from base.base_model import set_training
from base.errors import UsageError
from logger import ProgressBar, RunLogger
from logger.console import format_values
from trainer.failure import translate_runtime_errors
from trainer.find_lr.find_lr import set_rates
from trainer.trainer import Trainer

log = logging.getLogger("train")

NEAR_ZERO = 0.02  # of the first loss: of ten classes the right one gets 95 %
HINTS = """
  - more steps, or another learning rate: python -m trainer.find_lr suggests one
  - the loss: does it fit the model's last layer and the targets?
  - mixed targets, label smoothing, dropout and penalties keep a loss above zero"""


def overfit(trainer: Trainer, num_steps: int) -> None:
    """Train on the first batch, always the same tensors, until its loss is near zero.

    Everything is in training mode, dropout too; the learning rates are the configured ones, without
    a schedule. Callbacks change the batch once.

    Raises:
        UsageError: `num_steps` is below 2, or the loss stays above a fiftieth of the first.
        DivergedError: the loss is not finite.
    """
    if num_steps < 2:
        raise UsageError(f"--steps is {num_steps}, expected 2 or more")
    trainer.begin(RunLogger(None))
    if not any(parameter.requires_grad for parameter in trainer.parameters):
        raise UsageError("every parameter is frozen")
    set_rates(trainer)
    set_training(trainer.model)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    trainer.num_batches = 1
    batch = trainer.prepare_batch(next(trainer.data_loader.batches(0, 1)))
    rows: list[dict[str, float]] = []
    bar = ProgressBar(num_steps * trainer.batch_size, description="one batch")
    with bar, translate_runtime_errors(trainer):
        while len(rows) < num_steps and not (rows and _is_near_zero(rows)):
            trainer.train_metrics.reset()
            trainer.train_batch(batch)
            rows.append(trainer.train_metrics.compute())
            bar.update(trainer.batch_size)
            bar.show(**rows[-1])
    log.info("first step:  %s", format_values(rows[0]))
    log.info("step %-6d  %s", len(rows), format_values(rows[-1]))
    if not _is_near_zero(rows):
        raise UsageError(_explain(trainer, before, rows))
    log.info("the model can overfit a batch of %d", trainer.batch_size)


def _is_near_zero(rows: list[dict[str, float]]) -> bool:
    """Tell whether the last loss is near zero, or lower where losses may be negative."""
    first, last = rows[0]["loss"], rows[-1]["loss"]
    return last <= NEAR_ZERO * first if first > 0 else last < first


def _explain(
    trainer: Trainer, before: dict[str, torch.Tensor], rows: list[dict[str, float]]
) -> str:
    """Return what went wrong, and what there is to look at, the likeliest first."""
    first, last = rows[0]["loss"], rows[-1]["loss"]
    parameters = trainer.network.named_parameters()
    still = [name for name, value in parameters if torch.equal(value, before[name])]
    unchanged = f"\n  - parameters that have not changed: {', '.join(still[:5])}" if still else ""
    return (
        f"one batch of {trainer.batch_size} was not learned in {len(rows)} steps: the loss went "
        f"from {first:.4g} to {last:.4g}, expected {NEAR_ZERO * abs(first):.4g} or less"
        f"{unchanged}{HINTS}"
    )
