"""The state of a trainer: what a checkpoint holds, and how it is put back."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from base.checkpoint.state import differences, load_parts, state_of
from base.errors import DataError
from base.runtime import distributed
from base.runtime.device import rng_state, set_rng_state, versions

COUNTERS = ("epoch", "step", "batch", "seconds", "row")
NUM_SHOWN = 3  # differences


class TrainerState:
    """The part of `BaseTrainer` that saves and restores; it adds no attribute of its own.

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

    def _model_parts(self) -> dict[str, Any]:
        average = self.ema.module if self.ema else None
        return {"model": self.network, "loss": self.loss, "ema": average}

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
