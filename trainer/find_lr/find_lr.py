"""The range test of learning rates: the loss at ever higher rates."""

import logging
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from base.base_model import set_training
from base.errors import DivergedError, UsageError
from logger import ProgressBar, RunLogger
from logger.plots.figures import BEST, INK, TRAIN, lighten, new_figure, save_figure
from trainer.failure import translate_runtime_errors
from trainer.trainer import Trainer

log = logging.getLogger("train")

NUM_STEPS = 200
LOWEST, HIGHEST = 1e-7, 10.0
DIVERGED = 4.0  # times the lowest loss, both smoothed
SMOOTHING = 9  # steps: about a third of a decade


def find_lr(trainer: Trainer) -> float | None:
    """Train with a rising learning rate until the loss diverges, and return a rate to train with.

    It is that of the steepest descent of the loss, None where it falls nowhere;
    `NAME-lr-finder.png` shows it. The rates of parameter groups keep their ratios. Weights are
    stepped on the way: the trainer is to be thrown away.
    Smith, 2015, https://arxiv.org/abs/1506.01186

    Raises:
        UsageError: the steps are not those of one optimizer with a learning rate.
        DivergedError: the loss is not finite from the first step on.
        WriteError: the plot cannot be written.
    """
    has_own_steps = type(trainer).train_batch is not Trainer.train_batch
    if trainer.needs_closure or has_own_steps or not trainer.optimizer.defaults["lr"] > 0:
        raise UsageError(
            "expected one optimizer that steps at a given rate above 0; LBFGS searches for its "
            "own, and a train_batch of one's own may have several"
        )
    trainer.begin(RunLogger(None))
    rates = np.geomspace(LOWEST, HIGHEST, NUM_STEPS)
    losses = smoothed(list(_losses(trainer, rates)))
    if not losses:
        raise DivergedError(f"the loss is not finite at a learning rate of {LOWEST:g}")
    suggestion = steepest(rates, losses)
    tried, path = rates[: len(losses)], Path(f"{trainer.config.name}-lr-finder.png")
    plot_losses(tried, losses, path, suggestion=suggestion)
    log.info("%d steps, up to a learning rate of %.2g: %s", len(tried), tried[-1], path)
    if suggestion is None:
        log.warning("the loss falls at no learning rate: is the model wired rightly?")
    else:
        log.info("suggestion: %s", _command(trainer, suggestion))
    return suggestion


def set_rates(trainer: Trainer, lr: float | None = None) -> None:
    """Give the parameter groups the config's rates, or those in their ratios to `lr`.

    A scheduler has set others when it was built.
    """
    default = trainer.optimizer.defaults["lr"]
    own = [group.model_extra.get("lr", default) for group in trainer.config.optimizer.param_groups]
    for group, rate in zip_longest(trainer.optimizer.param_groups, own, fillvalue=default):
        group["lr"] = rate if lr is None else rate / default * lr


def _losses(trainer: Trainer, rates: Sequence[float]) -> Iterator[float]:
    """Yield the loss of one optimizer step at each rate, until it diverges."""
    losses, lowest = [], math.inf
    set_training(trainer.model)
    batches = _batches(trainer)
    bar = ProgressBar(len(rates), description="learning rates")
    with bar, translate_runtime_errors(trainer), suppress(DivergedError):
        for rate in rates:
            set_rates(trainer, float(rate))
            trainer.is_update_step = False
            while not trainer.is_update_step:
                trainer.train_batch(next(batches))
            losses.append(trainer.train_metrics.compute_since_last_log()["loss"])
            level = float(np.mean(losses[-SMOOTHING:]))
            lowest = min(lowest, level)
            if not math.isfinite(level) or level - lowest > (DIVERGED - 1) * abs(lowest):
                return
            yield losses[-1]
            bar.update(1)


def _batches(trainer: Trainer) -> Iterator[Any]:
    """Yield training batches, ready for `train_batch`, epoch after epoch."""
    while True:
        for batch in trainer.data_loader.batches(trainer.first_batch, trainer.num_batches):
            yield trainer.prepare_batch(batch)
            trainer.batch += 1
        trainer.epoch, trainer.batch = trainer.epoch + 1, 0


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the means of each loss and its neighbours, fewer at both ends."""
    half = SMOOTHING // 2
    return [float(np.mean(losses[max(i - half, 0) : i + half + 1])) for i in range(len(losses))]


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the rate, to two digits, at which the loss falls most on its way to the minimum.

    Only the first four fifths of the way count: the minimum itself may come after a peak, with
    weights that a high rate has spoiled. It is None where the loss hardly falls.
    """
    fall = losses[0] - min(losses)
    if not fall > 0.05 * abs(losses[0]):
        return None
    end = int(np.argmax(np.array(losses) <= losses[0] - 0.8 * fall))
    slopes = smoothed(np.gradient(losses[: end + 1]))
    return float(f"{rates[int(np.argmin(slopes))]:.1e}")


def _command(trainer: Trainer, rate: float) -> str:
    """Return the command that trains with a rate: this one's options go to train.py."""
    scale = rate / trainer.optimizer.defaults["lr"]
    own = [
        f"optimizer.param_groups.{number}.lr={group.model_extra['lr'] * scale:.2g}"
        for number, group in enumerate(trainer.config.optimizer.param_groups)
        if "lr" in group.model_extra
    ]
    return shlex.join(["python", "train.py", *sys.argv[1:], "--lr", f"{rate:g}", *own])


def plot_losses(
    rates: Sequence[float], losses: Sequence[float], path: Path, *, suggestion: float | None
) -> None:
    """Draw the loss over the learning rate it was reached with; mark the suggested one.

    Raises:
        WriteError: the file cannot be written.
    """
    figure = new_figure(7.0, 3.6)
    axes = figure.add_subplot(xscale="log")
    axes.plot(rates, losses, color=TRAIN, linewidth=1.8)
    if suggestion is not None:
        axes.axvline(suggestion, label=f"suggestion: {suggestion:g}", **BEST)
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    axes.set_xlabel("learning rate", color=INK)
    axes.set_ylabel("smoothed loss", color=INK)
    lighten(axes)
    save_figure(figure, path)
