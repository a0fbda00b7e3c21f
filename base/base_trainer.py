"""The contract of trainers: `fit` is the order of an epoch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from base.base_data_loader import BaseDataLoader
from base.callback import Callback
from base.checkpoint.checkpoints import Checkpoints
from base.config.schema import Config
from base.runtime import distributed
from base.runtime.device import PRECISIONS, rng_state, set_rng_state, to_device
from base.runtime.finite_guard import FiniteGuard
from base.runtime.metric_tracker import Metric, MetricTracker
from base.runtime.monitor import Monitor
from base.runtime.stop_signal import StopSignal
from base.trainer_state import TrainerState


class BaseTrainer(TrainerState, ABC):
    """Trains a model epoch by epoch; a subclass says what training and evaluating an epoch is.

    `network` is the plain module whose state is saved; `model` is what training calls: the same,
    compiled or wrapped for several processes as the settings say. `epoch` counts finished epochs,
    `step` optimizer steps since the start, `batch` batches of this epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Callable[[Any, Any], Any],
        metrics: Mapping[str, Metric],
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any = None,
        data_loader: BaseDataLoader,
        valid_data_loader: BaseDataLoader | None = None,
        callbacks: Sequence[Callback] = (),
        config: Config,
        device: torch.device,
    ) -> None:
        self.config, self.settings, self.device = config, config.trainer, device
        self.is_alone = distributed.world_size() == 1
        self.network, self.loss = model, loss
        self.wrap()
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        # "epoch" or "step"; None lets the scheduler stand, as a callback does that sets the rates
        self.schedule_interval = config.lr_scheduler.interval if lr_scheduler is not None else None
        self.data_loader, self.valid_data_loader = data_loader, valid_data_loader
        self.callbacks = list(callbacks)
        self.metrics = dict(metrics)
        self.train_metrics = MetricTracker(metrics, device=device)
        self.valid_metrics = MetricTracker(metrics, device=device)
        self.tracker = self.train_metrics  # the one in use; in evaluation it is another
        self.monitor = Monitor(self.settings.monitor, early_stop=self.settings.early_stop)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.settings.precision == "fp16")
        self.guard = self.make_guard()
        self.ema = None
        if (decay := self.settings.ema_decay) is not None:
            self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.epoch = self.step = self.batch = 0
        self.seconds = 0.0  # of training in this epoch
        self.waiting = 0.0  # share of them in which training waited for data
        self.row: dict[str, float] = {}  # of the last finished epoch
        self.stop_signal = StopSignal()

    @abstractmethod
    def train_epoch(self) -> dict[str, float]:
        """Train from batch `self.batch` to the end of the epoch; return its columns."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Evaluate on the validation data; return its columns without a `val_` prefix."""

    @property
    def is_finished(self) -> bool:
        """Whether every epoch is done or training stopped early."""
        return self.epoch >= self.settings.epochs or self.monitor.should_stop

    def fit(self, *, logger: Any, checkpoints: Checkpoints | None = None) -> dict[str, Any]:
        """Train to the end and return the summary of the run.

        `logger` is told what happens (`logger.RunLogger`); without `checkpoints` nothing is saved.

        Raises:
            StoppedError: a signal came; the state was saved.
            DivergedError: the loss or the model is not finite.
            WriteError: a checkpoint or a log could not be written.
        """
        with self.stop_signal:
            self.begin(logger, checkpoints)
            while not self.is_finished:
                if self.batch == 0:
                    self._call("on_epoch_start")
                columns = self.train_epoch()
                if self.valid_data_loader is not None:
                    columns |= {f"val_{name}": value for name, value in self.evaluate().items()}
                self._finish_epoch(distributed.share(columns))
            self._call("on_fit_end")
        return self.summary()

    def begin(self, logger: Any, checkpoints: Checkpoints | None = None) -> None:
        """Set where to log and save, call `on_fit_start`; for `fit`, or a few steps without it."""
        self.logger, self.checkpoints = logger, checkpoints
        self._call("on_fit_start")

    def _finish_epoch(self, columns: Mapping[str, float]) -> None:
        self.epoch += 1
        self.row = {"epoch": self.epoch, "step": self.step, **columns}
        self.logger.log_epoch(self.row, num_epochs=self.settings.epochs, waiting=self.waiting)
        improved = self.monitor.update(self.row)
        if self.schedule_interval == "epoch":
            self._step_scheduler()
        self.batch, self.seconds = 0, 0.0
        self.train_metrics.reset()
        self._call("on_epoch_end", self.row)
        signum = distributed.max_over_ranks(self.stop_signal.number)
        if self.epoch % self.settings.save_period == 0 or self.is_finished or signum:
            self.save(best=improved)
        elif improved:
            self.save_best()
        if signum and not self.is_finished:
            raise self._stopped(signum)

    def _step_scheduler(self) -> None:
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self.lr_scheduler.step(self.row[self.monitor.column])
        else:
            self.lr_scheduler.step()

    def _call(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *args)

    def summary(self) -> dict[str, Any]:
        """Return what `summary.json` holds: the last epoch, and the best by the monitor."""
        return {
            "name": self.config.name,
            "epochs": self.epoch,
            "steps": self.step,
            "stopped_early": self.monitor.should_stop,
            "best": self.monitor.best_row,
            "last": self.row,
        }

    # --- what the settings make of the model ----------------------------------------------------

    def wrap(self) -> None:
        """Make `model` of the network anew; needed when other parameters shall be trained."""
        self.model = torch.compile(self.network) if self.settings.compile else self.network
        if not self.is_alone:
            # above two ranks a rebuilt bucket order would change the sums after a resume
            self.model = DistributedDataParallel(
                self.model,
                device_ids=None if self.device.type == "cpu" else [self.device],
                find_unused_parameters=self.settings.deterministic and distributed.world_size() > 2,
            )

    def make_guard(self) -> FiniteGuard:
        """Return the guard of the optimizer as it is now; fp16 looks at every loss at once."""
        return FiniteGuard(self.optimizer, device=self.device, at_once=self.scaler.is_enabled())

    def autocast(self) -> AbstractContextManager:
        """Return the context of a forward pass in the configured precision."""
        if self.settings.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.settings.precision])

    def on_device(self, batch: Any) -> Any:
        """Return the batch on the run's device, images in the configured memory format."""
        if self.device.type == "cpu" and not self.settings.channels_last:
            return batch
        return to_device(batch, self.device, channels_last=self.settings.channels_last)

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

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer steps: the model's parameters and those of the loss."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def learning_rate(self) -> float:
        """The rate of the optimizer's first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])
