"""Records some optimizer steps with torch.profiler: a trace to look at, and what cost most."""

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from base import BaseTrainer

log = logging.getLogger("train")

NUM_SHOWN = 10
NUM_SKIPPED = 3  # first steps, in which memory is allocated and kernels are chosen


def profiled(trainer: BaseTrainer) -> AbstractContextManager:
    """Return the context that profiles steps of the first epoch, if that is asked for.

    `trainer.profiler.step` is to be called after each optimizer step. When all are recorded, or the
    epoch ends, the trace goes into the run's folder, if there is one, and the operations that cost
    most of the device's time, or the CPU's, are printed.
    """
    num_steps, trainer.num_profiled, trainer.profiler = trainer.num_profiled, None, None
    if num_steps is None:
        return nullcontext()
    device = trainer.device
    folder = trainer.checkpoints and trainer.checkpoints.folder.parent / "tensorboard"
    activities = [ProfilerActivity.CPU]
    if device.type in ("cuda", "xpu"):
        activities.append(getattr(ProfilerActivity, device.type.upper()))
    trainer.profiler = profile(
        activities=activities,
        schedule=schedule(wait=NUM_SKIPPED - 1, warmup=1, active=num_steps, repeat=1),
        on_trace_ready=partial(_report, device=device, folder=folder),
    )
    return trainer.profiler


def _report(recorded: profile, *, device: torch.device, folder: Path | None) -> None:
    where = "CPU" if device.type == "cpu" else "device"
    costs, num_steps = [], 0
    for event in recorded.key_averages():
        if event.key.startswith("ProfilerStep"):
            num_steps = event.count
        else:
            time = getattr(event, f"self_{where.lower()}_time_total")
            costs.append((time, event.count, event.key))
    total = sum(time for time, _, _ in costs) or 1
    log.info("what cost most of the %s's time in %d steps, in ms:", where, num_steps)
    for time, count, name in sorted(costs, reverse=True)[:NUM_SHOWN]:
        log.info("  %9.2f  %5.1f %%  %6d x  %s", time / 1e3, 100 * time / total, count, name)
    if folder is not None:
        tensorboard_trace_handler(str(folder))(recorded)
        log.info("trace: %s", folder)
