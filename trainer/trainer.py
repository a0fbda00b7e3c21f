"""The batch loop and evaluation: the trainer that most projects use or subclass."""

import functools
import operator
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from base import BaseTrainer
from base.base_model import set_training
from base.config.schema import Config
from base.errors import ConfigIssue, DivergedError, KeyPath
from base.runtime import distributed
from base.runtime.device import count_samples
from base.runtime.finite_guard import FiniteGuard
from logger import ProgressBar
from trainer import batches
from trainer.batches import Losses, TimedIterator
from trainer.failure import translate_runtime_errors


class Trainer(BaseTrainer):
    """Trains on batches of (input, target).

    Override `train_step(batch)` for another forward pass or loss, and `valid_step(batch)` if
    evaluation differs from it. For several optimizers override `train_batch(batch)`: it owns
    backward, step and whatever of precision, accumulation and clipping it wants; `log_losses` logs
    its losses, `stateful` names what it must save.
    """

    def __init__(self, model: nn.Module, **parts: Any) -> None:
        super().__init__(model, **parts)
        self.num_batches = batches.count_batches(self.settings, self.data_loader)
        self.num_valid_batches = batches.count_limited(self.settings, self.valid_data_loader)
        self.has_warned = False
        self.needs_closure = isinstance(self.optimizer, torch.optim.LBFGS)

    @classmethod
    def check_config(cls, config: Config, path: KeyPath) -> Iterable[ConfigIssue]:
        """Return what these steps cannot do with a config; those of a subclass may."""
        return batches.check_stock_steps(config, path) if cls is Trainer else ()

    @staticmethod
    def columns(args: Any) -> Iterable[str]:
        """Return the columns besides those of loss and metrics; a subclass may say others."""
        return ()

    # --- what a subclass changes ----------------------------------------------------------------

    def train_step(self, batch: Any) -> Losses:
        """Return the mean loss of a batch, or its components, which are summed and logged."""
        inputs, target = batches.input_and_target(batch)
        output = self.model(inputs)
        self.update_metrics(output, target)
        return self.loss(output, target)

    def valid_step(self, batch: Any) -> Losses:
        """Return the loss of a batch of evaluation; nothing is differentiated."""
        return self.train_step(batch)

    def train_batch(self, batch: Any) -> None:
        """Go backward on a batch, and step at the end of a group of `accumulate` batches."""
        if self.needs_closure:
            self._step_with_closure(batch)
            return
        if self.is_update_step or self.is_alone:
            self.backward(batch)
        else:
            with self.model.no_sync():  # ranks exchange gradients once for a group
                self.backward(batch)
        if self.is_update_step:
            self.optimizer_step()

    # --- training -------------------------------------------------------------------------------

    def train_epoch(self) -> dict[str, float]:
        """Train from batch `self.batch` on; return the epoch's columns, over all ranks."""
        set_training(self.model)
        first, num_left = self.first_batch + self.batch, self.num_batches - self.batch
        self.timed = TimedIterator(self.data_loader.batches(first, num_left), self.seconds)
        self.bar = ProgressBar(
            self.num_samples,
            description=f"epoch {self.epoch + 1}/{self.settings.epochs}",
            initial=self.data_loader.batch_sampler.count_samples(self.first_batch, self.batch),
            enabled=distributed.is_main(),
        )
        num_ranks = distributed.world_size()
        with self.bar, translate_runtime_errors(self):
            for batch in self.timed:
                self.train_batch(self.prepare_batch(batch))
                self.batch += 1
                self.bar.update(self.batch_size * num_ranks)
                if self.is_update_step:
                    self._after_step()
        self.has_warned = self.has_warned or batches.warn_of_waiting(self)
        return {
            "seconds": self.seconds,
            "samples_per_second": self.num_samples / self.seconds,
            "lr": self.learning_rate,
            **self.train_metrics.compute(),
        }

    def prepare_batch(self, batch: Any) -> Any:
        """Find a batch's size, position in its group and divisor; return it as it is trained on."""
        self.current_batch, self.rng_before = batch, torch.get_rng_state()  # kept if it fails
        self.batch_size = count_samples(batch)
        position = self.batch % self.settings.accumulate
        num_left = self.num_batches - self.batch
        self.loss_divisor = group_size = min(self.settings.accumulate, position + num_left)
        self.is_update_step = position + 1 == group_size
        if not self.is_alone:
            number = self.first_batch + self.batch
            self.loss_divisor /= self.data_loader.batch_sampler.weight(number)
        batch = self.on_device(batch)
        for callback in self.callbacks:
            batch = callback.on_batch(self, batch)
        return batch

    def backward(self, batch: Any) -> Tensor:
        """Compute and log a batch's loss, go backward, and return what was differentiated.

        Raises:
            DivergedError: the loss is not finite; nothing was differentiated.
        """
        with self.autocast():
            loss = self.log_losses(self.train_step(batch))
        if self.loss_divisor != 1:
            loss = loss / self.loss_divisor
        self.scaler.scale(loss).backward()
        if not self.is_alone and self.is_update_step and isinstance(self.loss, nn.Module):
            distributed.average_gradients(self.loss)
        return loss

    def optimizer_step(self) -> None:
        """Clip the gradients, step, and clear them."""
        if self.settings.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for parameter in self.parameters:  # optimizer.zero_grad() takes 20 times as long
            parameter.grad = None

    def _step_with_closure(self, batch: Any) -> None:
        """Step as LBFGS does, which asks for the loss and its gradient as often as it likes."""

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self.backward(batch)
            self.tracker.enabled = False  # a batch counts once, however often it is looked at
            return distributed.mean_over_ranks(loss)

        before = [parameter.detach().clone() for parameter in self.parameters]
        try:
            self.optimizer.step(closure)
        except DivergedError:  # at a point that the line search only tried
            for parameter, value in zip(self.parameters, before, strict=True):
                parameter.data.copy_(value)
            raise
        finally:
            self.tracker.enabled = True
        self.optimizer.zero_grad()

    def _after_step(self) -> None:
        self.step += 1
        if self.ema:
            self.ema.update_parameters(self.network)
        if self.schedule_interval == "step":
            self.lr_scheduler.step()
        self._call("on_step")
        self.seconds = self.timed.seconds
        is_last = self.batch == self.num_batches
        is_log_step = is_last or self.step % self.settings.log_interval == 0
        if is_log_step:
            self.guard.read(epoch=self.epoch + 1)
            self.waiting = self.timed.share_waited
            values = self.train_metrics.compute_since_last_log() | {"lr": self.learning_rate}
            self.bar.show(**values, waiting=self.waiting)
            self.logger.log_step(values, self.step)
        if is_log_step or (self.is_alone and self.stop_signal.number):
            self.stop_if_signalled()
        save_steps, save_period = self.settings.save_steps, self.settings.save_period
        is_saved_later = is_last and (self.epoch + 1) % save_period == 0  # with the epoch's end
        if save_steps and self.step % save_steps == 0 and not is_saved_later:
            self.save()

    @property
    def num_samples(self) -> int:
        """The number of samples of a training epoch, over all ranks."""
        return self.data_loader.batch_sampler.count_samples(self.first_batch, self.num_batches)

    @property
    def first_batch(self) -> int:
        """The number of this epoch's first batch among all batches of the loader."""
        is_fixed = self.settings.len_epoch is not None
        return self.epoch * (self.num_batches if is_fixed else len(self.data_loader))

    def make_guard(self) -> FiniteGuard:
        # a train_batch of one's own may step other optimizers, which do not know of `found_inf`
        at_once = type(self).train_batch is not Trainer.train_batch or self.scaler.is_enabled()
        return FiniteGuard(self.optimizer, device=self.device, at_once=at_once)

    # --- evaluation -----------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Evaluate on the validation data, with metrics in `valid_metrics`; no generator moves."""
        self.valid_metrics.reset()
        with self.evaluating(self.valid_metrics), translate_runtime_errors(self):
            for batch in self.valid_data_loader.batches(0, self.num_valid_batches):
                is_first = not self.tracker.sums
                self.log_losses(self.evaluate_batch(batch))
                if is_first and self.epoch == 0 and self.is_alone:
                    with suppress(ValueError):  # of metrics that need more than a batch
                        self.tracker.compute()  # names one that is no scalar at once
                if self.stop_signal.number and self.is_alone:
                    break
        self.stop_if_signalled()
        return self.valid_metrics.compute()

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
        components = batches.loss_components(losses, taken=self.metrics)
        total = functools.reduce(operator.add, components.values())
        for name, value in (components | {"loss": total}).items():
            seen = self.tracker.add(name, value, self.batch_size)
            if self.tracker is self.train_metrics:
                self.guard.check(name, seen, epoch=self.epoch + 1, step=self.step + 1)
        return total
