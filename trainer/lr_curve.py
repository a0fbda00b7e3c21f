"""The curve of `train.py --plot-lr`: the learning rates of a run, without the run."""

import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from base.config import Config
from base.config_rules import PLATEAU
from logger.plots import plot_learning_rates
from trainer import parts
from trainer.batches import count_batches
from trainer.data import build_loader

log = logging.getLogger("train")


def plot_lr(config: Config) -> Path:
    """Draw the rate of each parameter group over all steps into `NAME-lr.png`; return its path.

    The parts are those of a run, on the CPU; no sample is read and no weight file.

    Raises:
        ConfigError: the scheduler cannot be drawn, or cannot go as far as the run does.
        DataError: the dataset, whose length counts the steps, is missing or damaged.
        WriteError: the file cannot be written.
    """
    kind = config.lr_scheduler.type if config.lr_scheduler else "no scheduler"
    if kind == PLATEAU:
        message = f"{kind} follows {config.trainer.monitor!r}: only training shows its curve"
        raise config.mistake("lr_scheduler", message)
    device = torch.device("cpu")
    data_loader = build_loader(config, config.dataset, "dataset")
    model = parts.build_model(config, device, load_weights=False)
    optimizer = parts.build_optimizer(config, model, parts.build_loss(config, device))
    scheduler = parts.build_lr_scheduler(config, optimizer, data_loader)
    num_batches = count_batches(config.trainer, data_loader)
    steps_per_epoch = math.ceil(num_batches / config.trainer.accumulate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of")  # no optimizer steps in between
        curve = dict(_curve(config, optimizer, scheduler, steps_per_epoch))
    rates = dict(zip(_group_names(config), zip(*curve.values(), strict=True), strict=False))
    path = Path(f"{config.name}-lr.png")
    title = f"{config.name}: learning rate, {kind}"
    plot_learning_rates([*curve], rates, path, title=title, steps_per_epoch=steps_per_epoch)
    for name, values in rates.items():
        first, peak, last = values[0], max(values), values[-1]
        log.info("lr of %s: first %.4g, peak %.4g, last %.4g", name, first, peak, last)
    log.info("%d epochs of %d steps: %s", config.trainer.epochs, steps_per_epoch, path)
    return path


def _curve(
    config: Config, optimizer: torch.optim.Optimizer, scheduler: Any, steps_per_epoch: int
) -> Iterator[tuple[int, list[float]]]:
    """Yield each step from which on other rates may hold, with these; at last the run's end."""
    steps_schedule = scheduler is not None and config.lr_scheduler.interval == "step"
    num_steps = config.trainer.epochs * steps_per_epoch
    for step in range(0, num_steps, 1 if steps_schedule else steps_per_epoch):
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        yield step, rates
        if scheduler is not None:
            try:
                scheduler.step()
            except ValueError as error:  # OneCycleLR past its end
                message = f"ends before the run's {num_steps} steps: {error}"
                raise config.mistake("lr_scheduler", message) from error
    yield num_steps, rates


def _group_names(config: Config) -> list[str]:
    """Return what the parameter groups are called, the last one taking what is left, if any is."""
    patterns = [", ".join(group.params) for group in config.optimizer.param_groups]
    if not patterns:
        return ["all parameters"]
    return [f"group {number}: {name}" for number, name in enumerate([*patterns, "the rest"])]
