"""The sheet of `train.py --check`: what a config builds, tried on one batch."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from base.errors import UsageError
from base.runtime.device import first_tensor
from logger import RunLogger
from trainer.trainer import Trainer

NUM_TIMED_BATCHES = 4


def dry_run(trainer: Trainer) -> None:
    """Run one training and one validation batch, and print what they show.

    Weights are stepped on the way: a sheet is made of parts that are thrown away afterwards.
    """
    waiting = {name: p for name, p in trainer.network.named_parameters() if p.requires_grad}
    for name, parameter in list(waiting.items()):
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: waiting.pop(name, None))
    trainer.begin(RunLogger(None))  # callbacks find what does not fit them
    output, target, losses = _try_first_batch(trainer)
    parameters = list(trainer.network.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    print(f"parameters: {sum(p.numel() for p in parameters):,}, trainable {trainable:,}")
    print(f"initial loss: {losses['loss']:.4g}{_uniform_guess(output, target)}")
    print(f"parameters without a gradient: {', '.join(sorted(waiting)) or 'none'}")
    columns = {"epoch": 1, "lr": trainer.learning_rate} | losses
    if trainer.valid_data_loader is not None:
        values = trainer.evaluate(limit=1)
        columns |= {f"val_{name}": value for name, value in values.items()}
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"one validation batch: {shown}")
    trainer.monitor.update(columns)  # names a column that nothing logs
    seconds = _seconds_per_batch(trainer)
    steps = math.ceil(trainer.num_batches / trainer.settings.accumulate)
    print(f"steps per epoch: {steps:,}, of {trainer.num_samples:,} samples")
    print(f"time per epoch: about {_duration(seconds * trainer.num_batches)} on {trainer.device}")


def _try_first_batch(trainer: Trainer) -> tuple[Any, Any, dict[str, float]]:
    """Train on a batch, print the layers that it came through, and return what it gave.

    Raises:
        UsageError: model, loss and data do not fit one another.
    """
    shapes: dict[str, str] = {}
    outputs: list[Any] = []
    handles = [trainer.network.register_forward_hook(lambda m, args, out: outputs.append(out))]
    for name, module in trainer.network.named_modules():
        if not any(module.children()):
            handles.append(module.register_forward_hook(_shape_recorder(shapes, name)))
    batch = next(trainer.data_loader.batches(0, 1))
    target = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
    try:
        trainer.train_batch(trainer.prepare_batch(batch))
    except (RuntimeError, IndexError, ValueError) as error:
        cause = " ".join(str(error).split())
        told = f" (target {_shape(first_tensor(target))})" if target is not None else ""
        raise UsageError(f"the first batch fails: {cause}{told}; --debug shows where") from error
    finally:
        _print_layers(trainer, batch, shapes)
    for handle in handles:
        handle.remove()
    return outputs[0] if outputs else None, target, trainer.train_metrics.compute()


def _print_layers(trainer: Trainer, batch: Any, shapes: dict[str, str]) -> None:
    rows = [("input", "", _shape(first_tensor(batch)), "", "")]
    for name, module in trainer.network.named_modules():
        if name in shapes:
            own = list(module.parameters())
            count = sum(p.numel() for p in own)
            trainable = sum(p.numel() for p in own if p.requires_grad)
            rows.append((name, type(module).__name__, shapes[name], f"{count:,}", f"{trainable:,}"))
    _print_table(("layer", "type", "output", "parameters", "trainable"), rows)


def _shape_recorder(shapes: dict[str, str], name: str) -> Any:
    def record(module: nn.Module, args: Any, output: Any) -> None:
        shapes.setdefault(name or "(model)", _shape(first_tensor(output)))

    return record


def _shape(tensor: Tensor | None) -> str:
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
    started = time.perf_counter()
    for number, batch in enumerate(trainer.data_loader.batches(0, count)):
        trainer.train_batch(trainer.prepare_batch(batch))
        if number == 0 and count > 1:
            started = time.perf_counter()
    return (time.perf_counter() - started) / max(count - 1, 1)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _print_table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        print("  ".join(left + right).rstrip())
