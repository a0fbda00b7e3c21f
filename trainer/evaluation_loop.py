"""The evaluation of a trainer, and what its steps call: metrics and losses."""

import functools
import operator
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from base.runtime import distributed
from base.runtime.device import count_samples, rng_state, set_rng_state
from base.runtime.metric_tracker import MetricTracker
from trainer.batches import Losses, count_limited, loss_components
from trainer.failure import translate_runtime_errors


class EvaluationLoop:
    """The part of `Trainer` that evaluates, and logs what its steps give.

    The trainer's `tracker` takes losses and metrics: `train_metrics`, in evaluation another.
    """

    def evaluate(
        self, *, limit: int | None = None, tracker: MetricTracker | None = None
    ) -> dict[str, float]:
        """Evaluate the averaged weights if there are any, else the model; no generator moves.

        `limit` is a number of batches, `tracker` takes the place of `valid_metrics`.
        """
        tracker = tracker or self.valid_metrics
        tracker.reset()
        count = count_limited(self.settings, self.valid_data_loader)
        batches = self.valid_data_loader.batches(0, min(count, limit or count))
        with self.evaluating(tracker), translate_runtime_errors(self):
            for number, batch in enumerate(batches):
                self.log_losses(self.evaluate_batch(batch))
                if number == 0 and self.epoch == 0 and self.is_alone:
                    with suppress(ValueError):  # of metrics that need more than a batch
                        tracker.compute()  # names one that is no scalar at once
                if self.stop_signal.number and self.is_alone:
                    break
        if signum := distributed.max_over_ranks(self.stop_signal.number):
            raise self.stop(signum)
        return tracker.compute()

    @contextmanager
    def evaluating(self, tracker: MetricTracker) -> Iterator[None]:
        """Evaluate in this context, metrics into `tracker`; the generators come out as they were.

        `self.model` is the plain module in evaluation mode, the averaged weights if there are any.
        """
        generators = rng_state(self.device)
        model, self.model = self.model, self.ema.module if self.ema else self.network
        self.tracker = tracker
        distributed.share_buffers(self.model)
        self.model.eval()
        try:
            with torch.no_grad():  # not inference_mode: a model may keep a tensor it makes here
                yield
        finally:
            self.model, self.tracker = model, self.train_metrics
            set_rng_state(generators, self.device)

    def evaluate_batch(self, batch: Any) -> Losses:
        """Return what `valid_step` makes of a batch, on the run's device and in its precision."""
        self.batch_size = count_samples(batch)
        with self.autocast():
            return self.valid_step(self.on_device(batch))

    def update_metrics(self, output: Any, target: Any) -> None:
        """Give the output for a batch and its target, its `labels` if mixed, to every metric."""
        self.tracker.update(output, getattr(target, "labels", target), self.batch_size)

    def log_losses(self, losses: Losses) -> Tensor:
        """Log a batch's loss, or its components and their sum, and return the sum.

        Raises:
            DivergedError: one of a training batch is not finite.
            UsageError: there is none, or a component is called as another column is.
        """
        components = loss_components(losses, taken=self.metrics)
        total = functools.reduce(operator.add, components.values())
        for name, value in (components | {"loss": total}).items():
            seen = self.tracker.add(name, value, self.batch_size)
            if self.tracker is self.train_metrics:
                self.guard.check(name, seen, epoch=self.epoch + 1, step=self.step + 1)
        return total
