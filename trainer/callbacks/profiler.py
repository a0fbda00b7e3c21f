"""Profile some optimizer steps with torch.profiler: a trace, and the costliest operations."""

import logging
from functools import partial
from pathlib import Path

import torch
from pydantic import PositiveInt
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from base import BaseTrainer, Callback
from base.runtime import distributed

log = logging.getLogger("train")

NUM_SHOWN = 10
NUM_SKIPPED = 3  # first steps, in which memory is allocated and kernels are chosen


class Profiler(Callback):
    """Profiles `steps` optimizer steps of the first epoch, from the fourth on, on one rank.

    The trace goes into the run's `tensorboard/`, for Perfetto or TensorBoard's profiler plugin, and
    the operations that cost most are printed.
    https://docs.pytorch.org/docs/stable/profiler.html
    """

    def __init__(self, steps: PositiveInt = 10) -> None:
        self.steps = steps
        self.profile: profile | None = None
        self.is_done = not distributed.is_main()

    def on_step(self, trainer: BaseTrainer) -> None:
        if self.is_done:
            return
        if self.profile is None:
            self._start(trainer)
        else:
            self.profile.step()
        if trainer.batch == trainer.num_batches:
            self.profile.stop()
            self.is_done = True
            if self.profile.step_num < NUM_SKIPPED:
                log.warning("Profiler: nothing recorded, an epoch has too few steps")

    def _start(self, trainer: BaseTrainer) -> None:
        folder = trainer.checkpoints and trainer.checkpoints.folder.parent / "tensorboard"
        activities = [ProfilerActivity.CPU]
        if trainer.device.type in ("cuda", "xpu"):
            activities.append(getattr(ProfilerActivity, trainer.device.type.upper()))
        self.profile = profile(
            activities=activities,
            schedule=schedule(wait=NUM_SKIPPED - 2, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=partial(_report, device=trainer.device, folder=folder),
        )
        self.profile.start()


def _report(recorded: profile, *, device: torch.device, folder: Path | None) -> None:
    cost = f"self_{'cpu' if device.type == 'cpu' else 'device'}_time_total"
    log.info(recorded.key_averages().table(sort_by=cost, row_limit=NUM_SHOWN))
    if folder is not None:
        tensorboard_trace_handler(str(folder))(recorded)
        log.info("trace: %s", folder)
