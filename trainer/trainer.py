"""The batch loop and evaluation: the trainer that most projects use or subclass."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from base import BaseDataLoader, BaseTrainer, distributed
from base.config import TrainerConfig
from base.device import PRECISIONS, count_samples, to_device
from base.errors import UsageError
from base.sample_rng import preserved_rng
from logger import ProgressBar


class Trainer(BaseTrainer):
    """Trains on batches of (input, target).

    Override `train_step(batch)` for another forward pass or loss, `valid_step(batch)` if evaluation
    differs from it, and `train_batch(batch)`, which owns backward and step, for several optimizers.
    """

    def __init__(self, model: nn.Module, **parts: Any) -> None:
        super().__init__(model, **parts)
        self.tracker = self.train_metrics
        self.batch_size = 0
        self.num_batches = count_batches(self.settings, self.data_loader)
        self.num_valid_batches = 0
        if self.valid_data_loader is not None:
            self.num_valid_batches = _limited(self.settings, self.valid_data_loader)

    # --- what a subclass changes ----------------------------------------------------------------

    def train_step(self, batch: Any) -> Tensor | dict[str, Tensor]:
        """Return the mean loss of a batch, or its components, which are summed and logged."""
        inputs, target = self.input_and_target(batch)
        output = self.model(inputs)
        self.tracker.update(output, target, self.batch_size)
        return self.loss(output, target)

    def valid_step(self, batch: Any) -> Tensor | dict[str, Tensor]:
        """Return the loss of a batch of evaluation; nothing is differentiated."""
        return self.train_step(batch)

    def train_batch(self, batch: Any) -> None:
        """Go backward on a batch, and step at the end of a group of `accumulate` batches."""
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self._step_with_closure(batch)
            return
        with nullcontext() if self.ends_group else self._no_sync():
            self.backward(batch)
        if self.ends_group:
            self.optimizer_step()

    # --- training -------------------------------------------------------------------------------

    def train_epoch(self) -> dict[str, float]:
        """Train from batch `self.batch` on; return the epoch's columns, over all ranks."""
        self._set_training(self.model)
        first = self._first_batch() + self.batch
        batches = self.data_loader.batches(first, self.num_batches - self.batch)
        started, before = time.perf_counter(), self.seconds
        with ProgressBar(
            self.num_batches,
            description=f"epoch {self.epoch + 1}/{self.settings.epochs}",
            initial=self.batch,
            enabled=distributed.is_main(),
        ) as self.bar:
            for batch in batches:
                self.batch_size = count_samples(batch)
                self._enter_group()
                self.train_batch(self._on_device(batch))
                self.batch += 1
                self.bar.update()
                if self.ends_group:
                    self.seconds = before + time.perf_counter() - started
                    self._after_step()
        columns = self.train_metrics.averages()
        return {
            "seconds": self.seconds,
            "samples_per_second": self.num_samples / self.seconds,
            "lr": self.learning_rate,
        } | columns

    def backward(self, batch: Any) -> Tensor:
        """Compute a batch's loss, log its components and go backward.

        Raises:
            DivergedError: the loss is not finite; nothing was differentiated.
        """
        with self.autocast():
            losses = self.train_step(batch)
            total, components = _summed(losses)
        self.guard.check(components, epoch=self.epoch + 1, step=self.step + 1)
        self._track(total, components)
        self.scaler.scale(total * self.loss_weight if self.loss_weight != 1 else total).backward()
        return total

    def optimizer_step(self) -> None:
        """Clip, step, clear the gradients, and follow the weights with their average."""
        if self.settings.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update_parameters(self.network)

    def _step_with_closure(self, batch: Any) -> None:
        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self.backward(batch)
            self.tracker.is_open = False  # a line search sees a batch often; it counts once
            return loss

        self.optimizer.step(closure)
        self.tracker.is_open = True
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update_parameters(self.network)

    def _enter_group(self) -> None:
        """Find where this batch stands in its group, and what its loss is multiplied by."""
        position = self.batch % self.settings.accumulate
        left_in_epoch = self.num_batches - (self.batch - position)
        group_size = min(self.settings.accumulate, left_in_epoch)
        self.ends_group = position + 1 == group_size
        number = self._first_batch() + self.batch
        self.loss_weight = self.data_loader.batch_sampler.weight(number) / group_size

    def _after_step(self) -> None:
        self.step += 1
        if self.lr_scheduler is not None and self.config.lr_scheduler.interval == "step":
            self.lr_scheduler.step()
        self._call("on_step")
        is_last = self.batch == self.num_batches
        is_log_step = is_last or self.step % self.settings.log_interval == 0
        if is_log_step:
            self._log_step()
        if signum := self._stop_requested(is_log_step):
            raise self.stop(signum)
        every = self.settings.save_steps
        if every and self.step % every == 0 and not is_last:
            self.save()

    def _log_step(self) -> None:
        self.guard.read(epoch=self.epoch + 1)
        values = self.train_metrics.interval() | {"lr": self.learning_rate}
        self.bar.show(**values)
        self.logger.log_step(values, self.step)

    def _stop_requested(self, is_log_step: bool) -> int:
        if distributed.world_size() == 1:
            return self.stop_signal.number
        return distributed.max_over_ranks(self.stop_signal.number) if is_log_step else 0

    # --- evaluation -----------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Evaluate the averaged weights if there are any, else the model; no generator moves."""
        batches = self.valid_data_loader.batches(0, self.num_valid_batches)
        self.valid_metrics.reset()
        with self._evaluating(), preserved_rng():
            for number, batch in enumerate(batches):
                self.batch_size = count_samples(batch)
                with self.autocast():
                    losses = self.valid_step(self._on_device(batch))
                    self._track(*_summed(losses))
                if number == 0 and distributed.world_size() == 1:
                    self.valid_metrics.averages()  # names a metric that is no scalar at once
                if distributed.world_size() == 1 and self.stop_signal.number:
                    break
        if signum := distributed.max_over_ranks(self.stop_signal.number):
            raise self.stop(signum)
        return self.valid_metrics.averages()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        model, self.model = self.model, self.ema.module if self.ema else self.network
        self.tracker = self.valid_metrics
        self.model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.model, self.tracker = model, self.train_metrics

    # --- parts of the loop ----------------------------------------------------------------------

    @property
    def num_samples(self) -> int:
        """The number of samples of a training epoch, over all ranks."""
        return self.data_loader.batch_sampler.count_samples(self._first_batch(), self.num_batches)

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def autocast(self) -> AbstractContextManager:
        """Return the context of a forward pass in the configured precision."""
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.settings.precision])

    def input_and_target(self, batch: Any) -> tuple[Any, Any]:
        """Return the two parts of a batch.

        Raises:
            UsageError: the batch is no pair, so `train_step` must be written for it.
        """
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            found = (
                f"{type(batch).__name__} of {len(batch)}" if hasattr(batch, "__len__") else batch
            )
            raise UsageError(
                f"the stock step takes batches of (input, target), found a {found}; override "
                "train_step(batch) in a trainer of your own"
            )
        return batch[0], batch[1]

    def _track(self, total: Tensor, components: Mapping[str, Tensor]) -> None:
        self.tracker.add("loss", total, self.batch_size)
        if len(components) > 1:
            for name, value in components.items():
                self.tracker.add(name, value, self.batch_size)

    def _on_device(self, batch: Any) -> Any:
        return to_device(batch, self.device, channels_last=self.settings.channels_last)

    def _no_sync(self) -> AbstractContextManager:
        return self.model.no_sync() if distributed.world_size() > 1 else nullcontext()

    def _set_training(self, model: nn.Module) -> None:
        """Put the model into training mode, but normalisations whose weights are frozen."""
        model.train()
        for module in model.modules():
            parameters = list(module.parameters(recurse=False))
            is_norm = isinstance(module, nn.modules.batchnorm._NormBase)
            if is_norm and parameters and not any(p.requires_grad for p in parameters):
                module.eval()

    def _first_batch(self) -> int:
        """Return the number of this epoch's first batch among all batches of the loader."""
        if self.settings.len_epoch is not None:
            return self.epoch * self.num_batches
        return self.epoch * len(self.data_loader)


def count_batches(settings: TrainerConfig, data_loader: BaseDataLoader) -> int:
    """Return the number of batches of a training epoch."""
    if settings.len_epoch is not None:
        return settings.len_epoch * settings.accumulate
    return _limited(settings, data_loader)


def _limited(settings: TrainerConfig, data_loader: BaseDataLoader) -> int:
    return min(len(data_loader), settings.limit_batches or len(data_loader))


def _summed(losses: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
    if isinstance(losses, Mapping):
        return sum(losses.values()), losses
    return losses, {"loss": losses}
