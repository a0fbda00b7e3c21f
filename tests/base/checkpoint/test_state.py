"""The states of parts: put back whole, or one line that says what differs."""

import pytest
import torch
from torch import nn

from base.checkpoint.state import differences, load_parts, state_of
from base.errors import CheckpointError


class Counter:
    """A part with a state of its own."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_parts_get_back_their_states_and_functions_have_none():
    parts = {"model": nn.Linear(2, 1), "counter": Counter(3), "loss": nn.functional.mse_loss}
    states = {name: state_of(part) for name, part in parts.items()}
    fresh = {"model": nn.Linear(2, 1), "counter": Counter(), "loss": nn.functional.mse_loss}
    load_parts(fresh, states)
    assert states["loss"] == {}
    assert fresh["counter"].count == 3
    assert torch.equal(fresh["model"].weight, parts["model"].weight)


def test_a_state_that_is_missing_or_of_another_part_is_named():
    with pytest.raises(CheckpointError, match=r"^the checkpoint holds no counter$"):
        load_parts({"counter": Counter()}, {})
    with pytest.raises(
        CheckpointError, match=r"^the checkpoint does not fit the counter: 'count'$"
    ):
        load_parts({"counter": Counter()}, {"counter": {}})


def test_the_message_stays_one_short_line_however_much_differs():
    deep = nn.Sequential(*(nn.Linear(1, 1) for _ in range(200)))
    with pytest.raises(CheckpointError, match=r"the model: .*Missing key.*0\.weight") as caught:
        load_parts({"model": deep}, {"model": {}})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_nests_that_differ_are_told_apart_by_path():
    own = {"mean": [0.1 + 0.2, 1e-17], "classes": ["a"], "scale": torch.ones(1)}
    assert list(differences(own, {"mean": [0.3, 0.0], "classes": ["a"], "scale": [1.0]})) == []
    stored = {"mean": [0.3001, 0.0], "classes": ["a", "b"], "scale": [1.0]}
    assert list(differences(own, stored)) == [
        "mean.0 is 0.30000000000000004, was 0.3001",
        "classes.1 is null, was 'b'",
    ]
