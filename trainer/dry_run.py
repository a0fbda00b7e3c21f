"""Try a config on one batch and print what it builds: `python train.py --check`."""

import math
import statistics
import time
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from base.errors import UsageError
from base.runtime.device import tensors_of
from logger import RunLogger
from logger.console import format_values
from trainer.trainer import Trainer

NUM_TIMED_BATCHES = 5
ROW = "{:<32}  {:<20}  {:<16}  {:>12}  {:>12}"


def dry_run(trainer: Trainer) -> None:
    """Run one training and one validation batch, and print what they show.

    The trainer is to be thrown away: its weights are stepped.

    Raises:
        UsageError: model, loss, data, callbacks or the monitor do not fit one another.
    """
    trained = {name: p for name, p in trainer.network.named_parameters() if p.requires_grad}
    idle = set(trained)
    for name, parameter in trained.items():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: idle.discard(name))
    trainer.begin(RunLogger())  # callbacks find what does not fit them
    guess = _try_first_batch(trainer)
    losses = trainer.train_metrics.compute()
    print(f"initial loss: {losses['loss']:.4g}{guess}")
    print(f"parameters without a gradient: {', '.join(sorted(idle)) or 'none'}")
    columns = {"epoch": 1, "lr": trainer.learning_rate} | losses
    if trainer.valid_data_loader is not None:
        trainer.num_valid_batches = 1
        values = trainer.evaluate()
        columns |= {f"val_{name}": value for name, value in values.items()}
        print(f"one validation batch: {format_values(values)}")
    trainer.monitor.update(columns)  # names a column that nothing logs
    steps = math.ceil(trainer.num_batches / trainer.settings.accumulate)
    print(f"steps per epoch: {steps:,}, of {trainer.num_samples:,} samples")
    duration = timedelta(seconds=math.ceil(_seconds_per_batch(trainer) * trainer.num_batches))
    print(f"time per epoch: about {duration} on {trainer.device}")


def _try_first_batch(trainer: Trainer) -> str:
    """Train on a batch, print each layer as it comes through; return what a guess would lose."""
    batch = next(trainer.data_loader.batches(0, 1))
    target = batch[-1] if isinstance(batch, (tuple, list)) else None
    shapes: dict[str, torch.Size] = {}  # of the outputs of the modules
    for name, module in trainer.network.named_modules():
        if module is trainer.network or not any(module.children()):
            module.register_forward_hook(partial(_print_layer, shapes, name or "(model)"))
    print(ROW.format("layer", "type", "output", "parameters", "trainable"))
    print(ROW.format("input", "", _format_shape(_shape(batch)), "", "").rstrip())
    try:
        trainer.train_batch(trainer.prepare_batch(batch))
    except (RuntimeError, IndexError, ValueError) as error:
        cause = " ".join(str(error).split())
        told = f" (target of shape {tuple(_shape(target))})"
        raise UsageError(f"the first batch fails: {cause}{told}; --debug shows where") from error
    return _uniform_guess(shapes.get("(model)", torch.Size()), target)


def _print_layer(shapes: dict, name: str, module: nn.Module, args: Any, output: Any) -> None:
    if name in shapes:  # a layer that is called again is shown once
        return
    shapes[name] = _shape(output)
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    kind, shape = type(module).__name__, _format_shape(shapes[name])
    print(ROW.format(name, kind, shape, f"{total:,}", f"{trained:,}"))


def _shape(nest: Any) -> torch.Size:
    return next((tensor.shape for tensor in tensors_of(nest)), torch.Size())


def _format_shape(shape: torch.Size) -> str:
    return "x".join(map(str, shape))


def _uniform_guess(output: torch.Size, target: Any) -> str:
    """Return what a uniform guess would lose, for scores (B, K) and class targets (B,)."""
    has_classes = isinstance(target, Tensor) and target.dtype == torch.int64
    if not has_classes or len(output) != 2 or target.shape != output[:1]:
        return ""
    return f" (a uniform guess over {output[1]} classes: {math.log(output[1]):.4g})"


def _seconds_per_batch(trainer: Trainer) -> float:
    """Return the median time of a training batch, reading it included."""
    times = [time.perf_counter()]
    for batch in trainer.data_loader.batches(0, min(NUM_TIMED_BATCHES, trainer.num_batches)):
        trainer.train_batch(trainer.prepare_batch(batch))
        times.append(time.perf_counter())
    return statistics.median(end - start for start, end in pairwise(times))
