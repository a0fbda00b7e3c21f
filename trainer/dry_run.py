"""Try a config on one batch and print what it builds: `python train.py --check`."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from base.errors import UsageError
from base.runtime.device import tensors_of
from logger import RunLogger
from logger.console import format_values
from trainer.trainer import Trainer

NUM_TIMED_BATCHES = 4


def dry_run(trainer: Trainer) -> None:
    """Run one training and one validation batch, and print what they show.

    The trainer is to be thrown away: its weights are stepped.

    Raises:
        UsageError: model, loss, data, callbacks or the monitor do not fit one another.
    """
    idle = {name for name, p in trainer.network.named_parameters() if p.requires_grad}
    for name, parameter in trainer.network.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: idle.discard(name))
    trainer.begin(RunLogger(None))  # callbacks find what does not fit them
    output, target, losses = _try_first_batch(trainer)
    total, trainable = _count_parameters(trainer.network)
    print(f"parameters: {total:,}, trainable {trainable:,}")
    print(f"initial loss: {losses['loss']:.4g}{_uniform_guess(output, target)}")
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
    duration = _format_duration(_seconds_per_batch(trainer) * trainer.num_batches)
    print(f"time per epoch: about {duration} on {trainer.device}")


def _try_first_batch(trainer: Trainer) -> tuple[Any, Any, dict[str, float]]:
    """Train on a batch, print each layer as it comes through, and return what it gave."""
    batch = next(trainer.data_loader.batches(0, 1))
    target = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
    outputs: list[Any] = []
    layers = {
        module: name or "(model)"
        for name, module in trainer.network.named_modules()
        if not any(module.children())
    }
    width = max(map(len, [*layers.values(), "layer"]))
    line = f"{{:<{width}}}  {{:<16}}  {{:<16}}  {{:>12}}  {{:>12}}"

    def print_layer(module: nn.Module, args: Any, output: Any) -> None:
        if name := layers.pop(module, ""):  # a layer that is called again is shown once
            counts = (f"{count:,}" for count in _count_parameters(module))
            print(line.format(name, type(module).__name__, _shape(output), *counts))

    print(line.format("layer", "type", "output", "parameters", "trainable"))
    print(line.format("input", "", _shape(batch), "", "").rstrip())
    handles = [module.register_forward_hook(print_layer) for module in layers]
    handles.append(trainer.network.register_forward_hook(lambda m, args, out: outputs.append(out)))
    try:
        trainer.train_batch(trainer.prepare_batch(batch))
    except (RuntimeError, IndexError, ValueError) as error:
        cause = " ".join(str(error).split())
        told = f" (target {_shape(target)})" if target is not None else ""
        raise UsageError(f"the first batch fails: {cause}{told}; --debug shows where") from error
    for handle in handles:
        handle.remove()
    return outputs[0] if outputs else None, target, trainer.train_metrics.compute()


def _count_parameters(module: nn.Module) -> tuple[int, int]:
    """Return the number of all parameters and of those that are trained."""
    counts = [(p.numel(), p.numel() * p.requires_grad) for p in module.parameters()]
    return sum(count for count, _ in counts), sum(count for _, count in counts)


def _shape(nest: Any) -> str:
    tensor = next(tensors_of(nest), None)
    return "x".join(map(str, tensor.shape)) if tensor is not None else ""


def _uniform_guess(output: Any, target: Any) -> str:
    """Return what a uniform guess would lose, for scores (B, K) and class targets (B,)."""
    if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
        return ""
    if output.ndim != 2 or target.ndim != 1 or target.dtype != torch.int64 or output.shape[1] < 2:
        return ""
    num_classes = output.shape[1]
    return f" (a uniform guess over {num_classes} classes: {math.log(num_classes):.4g})"


def _seconds_per_batch(trainer: Trainer) -> float:
    """Return the time of a training batch, reading it included, after a first one to warm up."""
    count = min(NUM_TIMED_BATCHES + 1, trainer.num_batches)
    times = [time.perf_counter()]
    for batch in trainer.data_loader.batches(0, count):
        trainer.train_batch(trainer.prepare_batch(batch))
        times.append(time.perf_counter())
    first = 1 if count > 1 else 0
    return (times[-1] - times[first]) / (count - first)


def _format_duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
