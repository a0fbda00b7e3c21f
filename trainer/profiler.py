"""Records some optimizer steps with torch.profiler: a trace to look at, and what cost most."""

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from base import BaseTrainer

log = logging.getLogger("train")

NUM_SHOWN = 10
NUM_SKIPPED = 3  # first steps, in which memory is allocated and kernels are chosen


class StepProfiler:
    """A context of one epoch in which `step()` is called after each optimizer step.

    When `num_steps` are recorded, or the epoch ends, the trace goes into `folder`, if there is one,
    and the operations that cost most of the device's time, or the CPU's, are printed.
    """

    def __init__(self, num_steps: int, *, device: torch.device, folder: Path | None) -> None:
        self.device, self.folder = device, folder
        activities = [ProfilerActivity.CPU]
        if device.type in ("cuda", "xpu"):
            activities.append(getattr(ProfilerActivity, device.type.upper()))
        self.profile = profile(
            activities=activities,
            schedule=schedule(wait=NUM_SKIPPED - 1, warmup=1, active=num_steps, repeat=1),
            on_trace_ready=self._report,
        )
        self.step = self.profile.step

    def __enter__(self) -> "StepProfiler":
        self.profile.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.profile.__exit__(*exc_info)

    def _report(self, recorded: profile) -> None:
        where = "CPU" if self.device.type == "cpu" else "device"
        kind = f"self_{where.lower()}_time_total"
        operations = [(getattr(event, kind), event) for event in recorded.key_averages()]
        operations = sorted(
            (time, event.count, event.key)
            for time, event in operations
            if not event.key.startswith("ProfilerStep")
        )
        total = sum(time for time, _, _ in operations) or 1
        counts = {event.key: event.count for event in recorded.key_averages()}
        steps = sum(n for name, n in counts.items() if name.startswith("ProfilerStep"))
        log.info("what cost most of the %s's time in %d steps, in ms:", where, steps)
        for time, count, name in operations[: -NUM_SHOWN - 1 : -1]:
            log.info("  %9.2f  %5.1f %%  %6d x  %s", time / 1e3, 100 * time / total, count, name)
        if self.folder is not None:
            tensorboard_trace_handler(str(self.folder))(recorded)
            log.info("trace: %s", self.folder)


def profiled(trainer: BaseTrainer) -> AbstractContextManager:
    """Return the context that profiles steps of the first epoch, if that is asked for."""
    num_steps, trainer.num_profiled, trainer.profiler = trainer.num_profiled, None, None
    if num_steps is None:
        return nullcontext()
    folder = trainer.checkpoints and trainer.checkpoints.folder.parent / "tensorboard"
    trainer.profiler = StepProfiler(num_steps, device=trainer.device, folder=folder)
    return trainer.profiler
