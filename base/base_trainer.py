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
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from base.base_data_loader import BaseDataLoader
from base.callback import Callback
from base.checkpoint.checkpoints import Checkpoints
from base.checkpoint.state import differences, load_parts, state_of
from base.config.schema import Config
from base.errors import DataError, StoppedError
from base.runtime import distributed
from base.runtime.device import PRECISIONS, rng_state, set_rng_state, versions
from base.runtime.finite_guard import FiniteGuard, check_model_finite
from base.runtime.metric_tracker import Metric, MetricTracker
from base.runtime.monitor import Monitor
from base.runtime.stop_signal import EXIT_CODES, StopSignal

NUM_SHOWN = 3  # differences


class BaseTrainer(ABC):
    """Trains a model epoch by epoch; a subclass says what training and evaluating an epoch is.

    `network` is the plain module whose state is saved; `model` is what training calls: the same,
    compiled or wrapped for several processes as the settings say. `epoch` counts finished epochs,
    `step` optimizer steps since the start, `batch` batches of this epoch. Name in `stateful` what
    else a subclass must save: attributes with `state_dict` and `load_state_dict`.
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
        self.world_size = distributed.world_size()
        self.is_alone = self.world_size == 1
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
        self.monitor = Monitor(self.settings.monitor, early_stop=self.settings.early_stop)
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=PRECISIONS[self.settings.precision] is torch.float16
        )
        self.guard = self._make_guard()
        self.ema = self._average(self.settings.ema_decay)
        self.epoch = self.step = self.batch = 0
        self.seconds = 0.0  # of training in this epoch
        self.waiting = 0.0  # share of them in which training waited for data
        self.row: dict[str, float] = {}  # of the last finished epoch
        self.stop_signal = StopSignal()

    @abstractmethod
    def train_epoch(self) -> dict[str, float]:
        """Train from batch `self.batch` to the end of the epoch; return its columns."""

    @abstractmethod
    def evaluate(
        self, *, limit: int | None = None, tracker: MetricTracker | None = None
    ) -> dict[str, float]:
        """Evaluate on the validation data; return its columns without a `val_` prefix.

        `limit` is a number of batches, `tracker` takes the place of `valid_metrics`; `fit` asks for
        neither.
        """

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
        """Let the callbacks look at what is to be trained; for `fit`, or a few steps without it."""
        self.logger, self.checkpoints = logger, checkpoints
        self._call("on_fit_start")

    def _finish_epoch(self, columns: Mapping[str, float]) -> None:
        self.epoch += 1
        self.row = {"epoch": self.epoch, "step": self.step, **columns}
        self.logger.log_epoch(self.row, num_epochs=self.settings.epochs, waiting=self.waiting)
        improved = self.monitor.update(self.row)
        self._step_epoch_scheduler()
        self.batch, self.seconds = 0, 0.0
        self.train_metrics.reset()
        self._call("on_epoch_end", self.row)
        signum = distributed.max_over_ranks(self.stop_signal.number)
        due = self.epoch % self.settings.save_period == 0 or self.is_finished or signum
        if due or improved:
            self.save(best=improved, regular=bool(due))
        if signum and not self.is_finished:
            raise self._stopped(signum)

    def _step_epoch_scheduler(self) -> None:
        if self.schedule_interval != "epoch":
            return
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

    # --- saving and restoring -------------------------------------------------------------------

    def save(self, *, best: bool = False, regular: bool = True) -> None:
        """Write a checkpoint of this very moment; every rank takes part, one writes.

        Raises:
            DivergedError: the model is not finite; nothing was written.
        """
        state = self._finite_state()
        self.logger.flush()
        if self.checkpoints is None:
            return
        if not regular:
            self.checkpoints.save_best(state)
        elif self.batch == 0:
            self.checkpoints.save(state, epoch=self.epoch, best=best)
        else:
            self.checkpoints.save(state, epoch=self.epoch + 1, step=self.step)

    def save_best(self, column: str) -> None:
        """Write the state of a finished epoch as the best by a column; every rank takes part.

        Raises:
            DivergedError: the model is not finite; nothing was written.
        """
        state = self._finite_state()
        if self.checkpoints is not None:
            self.checkpoints.save_best(state, column)

    def _finite_state(self) -> dict[str, Any]:
        epoch = self.epoch + (self.batch > 0)  # the one that trained last
        self.guard.read(epoch=epoch)
        check_model_finite(self.network, epoch=epoch, step=self.step)
        return self.state_dict()

    def stop(self, signum: int) -> StoppedError:
        """Save the state, if it is not yet, and return the error that ends a run after a signal."""
        if not self.is_finished:
            self.save()
        return self._stopped(signum)

    def _stopped(self, signum: int) -> StoppedError:
        place = f"in epoch {self.epoch + 1}" if self.batch else f"after epoch {self.epoch}"
        message = f"stopped by {signal.Signals(signum).name} {place}, step {self.step}"
        if self.checkpoints is not None:
            run = self.checkpoints.folder.parent
            message += f"; saved in {run}\n"
            message += f"continue with: {distributed.launcher()} train.py -r {run}"
        return StoppedError(message, exit_code=EXIT_CODES[signum])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs, as plain data and tensors; on every rank."""
        parts = self._model_parts() | self._other_parts()
        return {
            **{name: state_of(part) for name, part in parts.items()},
            "stateful": {name: state_of(getattr(self, name)) for name in self.stateful},
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "data": self.data_loader.fitted,
            "epoch": self.epoch,
            "step": self.step,
            "batch": self.batch,
            "seconds": self.seconds,
            "row": self.row,
            "metrics": distributed.gather_objects(self.train_metrics.state_dict()),
            "rng": distributed.gather_objects(rng_state(self.device)),
            "config": json.dumps(self.config.model_dump()),
            "versions": versions(self.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `state_dict` returned; it is copied, not kept.

        A rank that the saved run did not have keeps the generators it was seeded with.

        Raises:
            CheckpointError: it belongs to other parts; the first differences are named.
            DataError: it was trained on other data.
        """
        self._check_data(state["data"])
        state = copy.deepcopy(dict(state))  # some schedulers change what they are given
        self.load_model(state)
        load_parts(self._other_parts(), state)
        self.guard = self._make_guard()  # the state says whether the optimizer is fused
        load_parts({name: getattr(self, name) for name in self.stateful}, state["stateful"])
        load_parts(_numbered(self.callbacks), _numbered(state["callbacks"]))
        self.epoch, self.step, self.batch = state["epoch"], state["step"], state["batch"]
        self.seconds, self.row = state["seconds"], state["row"]
        if (rank := distributed.rank()) < len(state["rng"]):
            self.train_metrics.load_state_dict(state["metrics"][rank])
            set_rng_state(state["rng"][rank], self.device)

    def _check_data(self, stored: Mapping[str, Any]) -> None:
        if differing := list(differences(self.data_loader.fitted, stored)):
            dataset = self.data_loader.dataset.dataset
            raise DataError(
                f"{getattr(dataset, 'path', type(dataset).__name__)} is not what the run was "
                "trained on; put the old data back, or start a new run: "
                + "; ".join(differing[:NUM_SHOWN])
            )

    def load_model(self, state: Mapping[str, Any]) -> None:
        """Take up the network, its average and the loss's parameters of a state, nothing else.

        Raises:
            CheckpointError: it belongs to another model; the first differences are named.
        """
        load_parts(self._model_parts(), state)
        if self.ema:
            self.ema.n_averaged.fill_(state["step"])

    def _model_parts(self) -> dict[str, Any]:
        average = self.ema.module if self.ema else None
        return {"model": self.network, "loss": self.loss, "ema": average}

    def _other_parts(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer,
            "lr_scheduler": self.lr_scheduler,
            "scaler": self.scaler,
            "monitor": self.monitor,
        }

    def _make_guard(self) -> FiniteGuard:
        return FiniteGuard(self.optimizer, device=self.device, at_once=self.scaler.is_enabled())

    # --- what the settings make of the model ----------------------------------------------------

    def wrap(self) -> None:
        """Make `model` of the network anew; needed when other parameters shall be trained."""
        self.model = torch.compile(self.network) if self.settings.compile else self.network
        if not self.is_alone:
            # above two ranks a rebuilt bucket order would change the sums after a resume
            self.model = DistributedDataParallel(
                self.model,
                device_ids=None if self.device.type == "cpu" else [self.device],
                find_unused_parameters=self.settings.deterministic and self.world_size > 2,
            )

    def _average(self, decay: float | None) -> AveragedModel | None:
        if decay is None:
            return None
        return AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay))


def _numbered(callbacks: Sequence[Any]) -> dict[str, Any]:
    return {f"callback {number}": callback for number, callback in enumerate(callbacks)}
