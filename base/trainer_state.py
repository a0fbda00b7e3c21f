"""The state of a trainer: what a checkpoint holds, how it is put back, and when it is saved."""

import copy
import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from base.checkpoint.state import differences, load_parts, state_of
from base.errors import DataError, StoppedError
from base.runtime import distributed
from base.runtime.device import rng_state, set_rng_state, versions
from base.runtime.finite_guard import check_model_finite
from base.runtime.stop_signal import EXIT_CODES

COUNTERS = ("epoch", "step", "batch", "seconds", "row")
NUM_SHOWN = 3  # differences


class TrainerState:
    """The part of `BaseTrainer` that saves, stops and restores; it adds no attribute of its own.

    Name in `stateful` what else a subclass must save: attributes with `state_dict` and
    `load_state_dict`.
    """

    stateful: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs, as plain data and tensors; on every rank."""
        parts = self._model_parts() | self._training_parts()
        return {
            **{name: state_of(part) for name, part in parts.items()},
            "stateful": {name: state_of(getattr(self, name)) for name in self.stateful},
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "data": self.data_loader.fitted,
            "decided": {"in_memory": self.data_loader.in_memory},
            **{name: getattr(self, name) for name in COUNTERS},
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
        load_parts(self._training_parts(), state)
        self.guard = self.make_guard()  # the state says whether the optimizer is fused
        load_parts({name: getattr(self, name) for name in self.stateful}, state["stateful"])
        load_parts(_numbered(self.callbacks), _numbered(state["callbacks"]))
        for name in COUNTERS:
            setattr(self, name, state[name])
        if (rank := distributed.rank()) < len(state["rng"]):
            self.train_metrics.load_state_dict(state["metrics"][rank])
            set_rng_state(state["rng"][rank], self.device)

    def load_model(self, state: Mapping[str, Any]) -> None:
        """Take up the network, its average and the loss's parameters of a state, nothing else.

        Raises:
            CheckpointError: it belongs to another model; the first differences are named.
        """
        load_parts(self._model_parts(), state)
        if self.ema:
            self.ema.n_averaged.fill_(state["step"])

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint of this very step; every rank takes part, one writes.

        Raises:
            DivergedError: the model is not finite; nothing was written.
        """
        state = self._finite_state()
        epoch, step = (self.epoch + 1, self.step) if self.batch else (self.epoch, None)
        if self.checkpoints is not None:
            self.checkpoints.save(state, epoch=epoch, step=step, best=best)

    def save_best(self, column: str = "") -> None:
        """Write a finished epoch as the best alone, or as the best by a column; raise as `save`."""
        state = self._finite_state()
        if self.checkpoints is not None:
            self.checkpoints.save_best(state, column)

    def stop_if_signalled(self) -> None:
        """Save and stop if a signal came to any rank; all of them ask at the same step.

        Raises:
            StoppedError: one came; the message has the command that continues.
        """
        if signum := distributed.max_over_ranks(self.stop_signal.number):
            if not self.is_finished:
                self.save()
            raise self._stopped(signum)

    def _stopped(self, signum: int) -> StoppedError:
        place = f"in epoch {self.epoch + 1}" if self.batch else f"after epoch {self.epoch}"
        message = f"stopped by {signal.Signals(signum).name} {place}, step {self.step}"
        if self.checkpoints is not None:
            run = self.checkpoints.folder.parent
            message += f"; saved in {run}\n"
            message += f"continue with: {distributed.launcher()} train.py -r {run}"
        return StoppedError(message, exit_code=EXIT_CODES[signum])

    def _finite_state(self) -> dict[str, Any]:
        epoch = self.epoch + (self.batch > 0)  # the one that trained last
        self.guard.read(epoch=epoch)
        check_model_finite(self.network, epoch=epoch, step=self.step)
        self.logger.flush()
        return self.state_dict()

    def _model_parts(self) -> dict[str, Any]:
        return {"model": self.network, "loss": self.loss, "ema": self.ema and self.ema.module}

    def _training_parts(self) -> dict[str, Any]:
        names = ("optimizer", "lr_scheduler", "scaler", "monitor")
        return {name: getattr(self, name) for name in names}

    def _check_data(self, stored: Mapping[str, Any]) -> None:
        if differing := list(differences(self.data_loader.fitted, stored)):
            dataset = self.data_loader.dataset.dataset
            raise DataError(
                f"{getattr(dataset, 'path', type(dataset).__name__)} is not what the run was "
                "trained on; put the old data back, or start a new run: "
                + "; ".join(differing[:NUM_SHOWN])
            )


def _numbered(callbacks: Sequence[Any]) -> dict[str, Any]:
    return {f"callback {number}": callback for number, callback in enumerate(callbacks)}
