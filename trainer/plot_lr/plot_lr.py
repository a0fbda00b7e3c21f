"""Draw the learning rates of a run, without the run."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from base.config.rules import PLATEAU
from base.config.schema import Config
from logger.plots.plots_writer import plot_curves
from trainer import parts
from trainer.batches import count_steps
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
        raise config.issue(("lr_scheduler",), message)
    device = torch.device("cpu")
    data_loader = build_loader(config, "dataset")
    model = parts.build_model(config, device, load_weights=False)
    optimizer = parts.build_optimizer(config, model, parts.build_loss(config, device))
    scheduler = parts.build_lr_scheduler(config, optimizer, data_loader)
    num_steps = count_steps(config.trainer, data_loader)
    with warnings.catch_warnings(action="ignore"):  # no optimizer steps in between
        rows = list(_curve(config, optimizer, scheduler, num_steps))
    length = f"{config.trainer.epochs} epochs of {num_steps} steps"
    path = Path(f"{config.name}-lr.png")
    plot_curves(rows, path, title=f"{config.name}: learning rate, {kind}, {length}", x="step")
    for name in list(rows[0])[1:]:
        rates = [row[name] for row in rows]
        first, peak, last = rates[0], max(rates), rates[-1]
        log.info("lr of %s: first %.4g, peak %.4g, last %.4g", name, first, peak, last)
    log.info("%s: %s", length, path)
    return path


def _curve(
    config: Config, optimizer: torch.optim.Optimizer, scheduler: Any, steps_per_epoch: int
) -> Iterator[dict[str, float]]:
    """Yield the rates of the groups at the first and the last step, from 0 on, that have them."""
    names = [
        f"group {number}: {', '.join(group.params)}"
        for number, group in enumerate(config.optimizer.param_groups)
    ]
    names.append(f"group {len(names)}: the rest" if names else "all parameters")
    num_steps = config.trainer.epochs * steps_per_epoch
    is_stepped = scheduler is not None and config.lr_scheduler.interval == "step"
    stride = 1 if is_stepped else steps_per_epoch
    for first in range(0, num_steps, stride):
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        for step in sorted({first, first + stride - 1}):
            yield {"step": step, **dict(zip(names, rates, strict=False))}
        if scheduler is not None:
            try:
                scheduler.step()
            except ValueError as error:  # OneCycleLR past its end
                message = f"ends before the run's {num_steps} steps: {error}"
                raise config.issue(("lr_scheduler",), message) from error
