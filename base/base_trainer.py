"""The contract of trainers: `fit` owns the order of an epoch, once, and what a checkpoint holds."""

import copy
import json
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from base import distributed
from base.base_data_loader import BaseDataLoader
from base.callback import Callback
from base.checkpoint import Checkpoints, differing_keys
from base.config import Config
from base.device import PRECISIONS, rng_state, set_rng_state
from base.errors import CheckpointError, StoppedError
from base.finite_guard import FiniteGuard, check_model_finite
from base.metric_tracker import Metric, MetricTracker
from base.monitor import Monitor
from base.stop_signal import EXIT_CODES, StopSignal


class BaseTrainer(ABC):
    """Trains a model epoch by epoch; a subclass says what training and evaluating an epoch is.

    `model` is what a forward pass calls: the network, compiled or wrapped for several processes as
    the settings say. `network` is the plain module behind it, whose state dict is saved. `epoch`
    counts finished epochs, `step` optimizer steps since the start, `batch` batches of this epoch.
    Name in `stateful` what else a subclass must save: attributes with `state_dict`.
    """

    stateful: tuple[str, ...] = ()

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
        self.network, self.loss = model, loss
        self.model = self._wrap(model)
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.data_loader, self.valid_data_loader = data_loader, valid_data_loader
        self.callbacks = list(callbacks)
        self.train_metrics = MetricTracker(metrics, device=device)
        self.valid_metrics = MetricTracker(metrics, device=device)
        self.monitor = Monitor(self.settings.monitor, early_stop=self.settings.early_stop)
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=PRECISIONS[self.settings.precision] is torch.float16
        )
        self.guard = FiniteGuard(optimizer, device=device, scaled=self.scaler.is_enabled())
        self.ema = self._average(self.settings.ema_decay)
        self.epoch = self.step = self.batch = 0
        self.seconds = 0.0
        self.row: dict[str, float] = {}
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
        self.logger, self.checkpoints = logger, checkpoints
        with self.stop_signal:
            self._call("on_fit_start")
            while not self.is_finished:
                if self.batch == 0:
                    self._call("on_epoch_start")
                row = self.train_epoch()
                if self.valid_data_loader is not None:
                    row |= {f"val_{column}": value for column, value in self.evaluate().items()}
                self._finish_epoch(row)
            self._call("on_fit_end")
        return self.summary()

    def _finish_epoch(self, row: dict[str, float]) -> None:
        self.epoch += 1
        self.row = {"epoch": self.epoch, "step": self.step} | row
        self.logger.log_epoch(self.row, num_epochs=self.settings.epochs)
        improved = self.monitor.update(self.row)
        self._step_epoch_scheduler()
        self._call("on_epoch_end", self.row)
        self.batch, self.seconds = 0, 0.0
        self.train_metrics.reset()
        due = self.epoch % self.settings.save_period == 0 or self.is_finished
        if due or improved:
            self.save(best=improved, regular=due)

    def _step_epoch_scheduler(self) -> None:
        if self.lr_scheduler is None or self.config.lr_scheduler.interval == "step":
            return
        if isinstance(self.lr_scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.lr_scheduler.step(self.row[self.monitor.column])
        else:
            self.lr_scheduler.step()

    def _call(self, moment: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, moment)(self, *args)

    def summary(self) -> dict[str, Any]:
        """Return what `summary.json` holds: the last epoch, and the best by the monitor."""
        best = {}
        if self.monitor.is_on and self.monitor.best_epoch:
            best = {"epoch": self.monitor.best_epoch, self.monitor.column: self.monitor.best}
        return {
            "name": self.config.name,
            "epochs": self.epoch,
            "steps": self.step,
            "stopped_early": self.monitor.should_stop,
            "best": best,
            "last": self.row,
        }

    # --- saving and restoring -------------------------------------------------------------------

    def save(self, *, best: bool = False, regular: bool = True) -> None:
        """Write a checkpoint of this very moment; every rank takes part, one writes.

        Raises:
            DivergedError: the model is not finite; nothing was written.
        """
        self.guard.read(epoch=self.epoch + 1)
        check_model_finite(self.network, epoch=self.epoch + 1, step=self.step)
        state = self.state_dict()
        self.logger.flush()
        if self.checkpoints is None:
            return
        if not regular:
            self.checkpoints.save_best(state)
        elif self.batch == 0:
            self.checkpoints.save(state, epoch=self.epoch, best=best)
        else:
            self.checkpoints.save(state, epoch=self.epoch + 1, step=self.step)

    def stop(self, signum: int) -> StoppedError:
        """Save the state and return the error that ends the run after a signal."""
        self.save()
        name = signal.Signals(signum).name
        run = self.checkpoints.folder.parent if self.checkpoints else None
        return StoppedError(
            f"stopped by {name} in epoch {self.epoch + 1}, step {self.step}; saved in {run}\n"
            f"continue with: python train.py -r {run}",
            exit_code=EXIT_CODES[signum],
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs, as plain data and tensors; see docs/CONFIG.md."""
        return {
            "model": self.network.state_dict(),
            "loss": _state_of(self.loss),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": _state_of(self.lr_scheduler),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else {},
            "monitor": self.monitor.state_dict(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "epoch": self.epoch,
            "step": self.step,
            "batch": self.batch,
            "seconds": self.seconds,
            "row": self.row,
            "metrics": distributed.gather_objects(self.train_metrics.state_dict()),
            "rng": distributed.gather_objects(rng_state(self.device)),
            "config": json.dumps(self.config.model_dump()),
            "versions": versions(),
            **{name: getattr(self, name).state_dict() for name in self.stateful},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `state_dict` returned; it is copied, not kept.

        Raises:
            CheckpointError: it belongs to another model, optimizer or set of callbacks.
        """
        state = copy.deepcopy(dict(state))
        _load_module(self.network, state["model"], "model")
        if isinstance(self.loss, nn.Module):
            _load_module(self.loss, state["loss"], "loss")
        if self.ema:
            _load_module(self.ema.module, state["ema"], "ema")
            self.ema.n_averaged.fill_(state["step"])
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            for name in self.stateful:
                getattr(self, name).load_state_dict(state[name])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"the checkpoint has another optimizer: {error}") from error
        if self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.monitor.load_state_dict(state["monitor"])
        for callback, saved in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(saved)
        self.epoch, self.step, self.batch = state["epoch"], state["step"], state["batch"]
        self.seconds, self.row = state["seconds"], state["row"]
        rank = min(distributed.rank(), len(state["rng"]) - 1)
        self.train_metrics.load_state_dict(state["metrics"][rank])
        set_rng_state(state["rng"][rank], self.device)

    # --- what the settings make of the model ----------------------------------------------------

    def _wrap(self, model: nn.Module) -> nn.Module:
        if self.settings.compile:
            model = torch.compile(model)
        if distributed.world_size() == 1:
            return model
        # above two ranks a rebuilt bucket order would change the sums after a resume
        return DistributedDataParallel(
            model,
            device_ids=None if self.device.type == "cpu" else [self.device],
            find_unused_parameters=self.settings.deterministic and distributed.world_size() > 2,
        )

    def _average(self, decay: float | None) -> AveragedModel | None:
        if decay is None:
            return None
        return AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay))


def versions() -> dict[str, Any]:
    """Return what else decides the bits of a result: torch, CPU threads and processes."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "world_size": distributed.world_size(),
    }


def _state_of(thing: Any) -> dict[str, Any]:
    return thing.state_dict() if hasattr(thing, "state_dict") else {}


def _load_module(module: nn.Module, state: Mapping[str, Any], part: str) -> None:
    different = list(differing_keys(module.state_dict(), state))
    if different:
        raise CheckpointError(
            f"the checkpoint does not fit the {part}: {'; '.join(different[:3])}"
            + (f" and {len(different) - 3} more" if len(different) > 3 else "")
        )
    module.load_state_dict(state)
