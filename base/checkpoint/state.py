"""The states of a run's parts, as plain data and back, and what distinguishes two of them."""

import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from base.errors import CheckpointError, format_value

RTOL, ATOL = 1e-6, 1e-9  # another machine adds in another order
LONGEST_CAUSE = 400  # characters


def state_of(part: Any) -> dict[str, Any]:
    """Return the state of a part, empty for one that has none, such as a loss function."""
    return part.state_dict() if hasattr(part, "state_dict") else {}


def load_parts(parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Put states that `state_of` returned back into the parts of the same names.

    Raises:
        CheckpointError: a state is missing or is that of another part; the message has the first
            differences.
    """
    for name, part in parts.items():
        if not hasattr(part, "load_state_dict"):
            continue
        if name not in states:
            raise CheckpointError(f"the checkpoint holds no {name}")
        try:
            if unknown := _unknown_options(part.state_dict(), states[name]):
                raise ValueError(f"unknown options {', '.join(unknown)}")
            part.load_state_dict(states[name])
        except (KeyError, ValueError, RuntimeError) as error:
            cause = textwrap.shorten(str(error), LONGEST_CAUSE, placeholder=" ...")
            raise CheckpointError(f"the checkpoint does not fit the {name}: {cause}") from error


def _unknown_options(own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """Return the options of an optimizer's state that it lacks; torch would take them over."""
    groups, others = (each.get("param_groups", ()) for each in (own, state))
    return sorted({key for group in others for key in group} - {k for g in groups for k in g})


def differences(own: Any, stored: Any, path: str = "") -> Iterator[str]:
    """Yield what distinguishes two nests of plain data, each time with its dotted path."""
    own, stored = _as_plain(own), _as_plain(stored)
    if isinstance(own, dict) and isinstance(stored, dict):
        for key in {**stored, **own}:
            yield from differences(own.get(key), stored.get(key), f"{path}.{key}".lstrip("."))
        return
    both_float = isinstance(own, float) and isinstance(stored, float)
    if not (math.isclose(own, stored, rel_tol=RTOL, abs_tol=ATOL) if both_float else own == stored):
        yield f"{path} is {format_value(own)}, was {format_value(stored)}"


def _as_plain(value: Any) -> Any:
    value = value.tolist() if isinstance(value, Tensor) else value
    return dict(enumerate(value)) if isinstance(value, list | tuple) else value
