"""The states of a run's parts: as plain data, put back, or one line that says what differs."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from base.base_data_loader import BaseDataLoader
from base.checkpoint.checkpoints import differing_keys
from base.errors import CheckpointError, DataError, format_value
from base.runtime import distributed

NUM_SHOWN = 3
RTOL, ATOL = 1e-6, 1e-9  # another machine adds in another order


def versions(device: torch.device) -> dict[str, Any]:
    """Return what else decides the bits of a result: torch, threads, processes, the device."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "world_size": distributed.world_size(),
        "device": device.type,
    }


def state_of(part: Any) -> dict[str, Any]:
    """Return the state of a part, empty for one that has none, such as a loss function."""
    return part.state_dict() if hasattr(part, "state_dict") else {}


def load_parts(parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Put states that `state_of` returned back into the parts of the same names.

    Raises:
        CheckpointError: a state is missing or is that of another part; the first differences are
            named.
    """
    for name, part in parts.items():
        if not hasattr(part, "load_state_dict"):
            continue
        if name not in states:
            raise CheckpointError(f"the checkpoint holds no {name}")
        _load_part(name, part, states[name])


def check_fitted(loader: BaseDataLoader, stored: Any) -> None:
    """Compare what a dataset learned of the training samples with what a checkpoint holds of it.

    Raises:
        DataError: they differ; the first differences are named.
    """
    if not stored:  # by an older checkpoint
        return
    dataset = loader.dataset.dataset
    what = f"{getattr(dataset, 'path', type(dataset).__name__)} is not what the run was trained on"
    what += "; put the old data back, or start a new run"
    _refuse(what, _differing(loader.fitted, stored), DataError)


def _differing(own: Any, stored: Any, name: str = "") -> Iterator[str]:
    """Yield what distinguishes two nests of plain data, each time with its dotted path."""
    own, stored = _as_plain(own), _as_plain(stored)
    if isinstance(own, dict) and isinstance(stored, dict):
        for key in {**stored, **own}:
            path = f"{name}.{key}" if name else str(key)
            yield from _differing(own.get(key), stored.get(key), path)
        return
    both_float = isinstance(own, float) and isinstance(stored, float)
    if not (math.isclose(own, stored, rel_tol=RTOL, abs_tol=ATOL) if both_float else own == stored):
        yield f"{name} is {format_value(own)}, was {format_value(stored)}"


def _as_plain(value: Any) -> Any:
    value = value.tolist() if isinstance(value, Tensor) else value
    return dict(enumerate(value)) if isinstance(value, list | tuple) else value


def _load_part(name: str, part: Any, state: Mapping[str, Any]) -> None:
    what = f"the checkpoint does not fit the {name}"
    if isinstance(part, nn.Module):
        _refuse(what, differing_keys(part.state_dict(), state))
    elif isinstance(part, torch.optim.Optimizer):
        _refuse(what, _differing_groups(part.state_dict(), state))
    try:
        part.load_state_dict(state)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{what}: {error!r}") from error


def _refuse(what: str, differences: Iterable[str], error: type = CheckpointError) -> None:
    """Raise if there is a difference."""
    differences = list(differences)
    if differences:
        more = len(differences) - NUM_SHOWN
        first = "; ".join(differences[:NUM_SHOWN]) + (f" and {more} more" if more > 0 else "")
        raise error(f"{what}: {first}")


def _differing_groups(own: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what distinguishes two optimizers; torch itself looks at the sizes of groups alone."""
    own_groups, found_groups = own["param_groups"], found.get("param_groups", [])
    if len(own_groups) != len(found_groups):
        yield f"it has {len(found_groups)} parameter groups, not {len(own_groups)}"
        return
    for number, (group, other) in enumerate(zip(own_groups, found_groups, strict=True)):
        if len(group["params"]) != len(other["params"]):
            sizes = f"{len(other['params'])} parameters, not {len(group['params'])}"
            yield f"group {number} has {sizes}"
        yield from (f"{key} is not in the optimizer" for key in other if key not in group)
