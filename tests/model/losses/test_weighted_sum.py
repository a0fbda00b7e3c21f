"""The sum of losses."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from base.errors import UsageError
from base.registry import LOSSES
from base.registry.build import build
from model.losses.weighted_sum import WeightedSum

OUTPUT = torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.2, 0.3]])
TARGET = torch.tensor([2, 0])


def test_losses_are_named_weighted_and_built_from_nodes():
    node = {
        "type": "WeightedSum",
        "args": {
            "losses": {
                "plain": {"type": "cross_entropy"},
                "smooth": {"type": "CrossEntropyLoss", "args": {"label_smoothing": 0.1}},
            },
            "weights": {"smooth": 0.25},
        },
    }
    found = build(node, LOSSES, path=("loss",))(OUTPUT, TARGET)
    assert found == {
        "plain": F.cross_entropy(OUTPUT, TARGET),
        "smooth": 0.25 * F.cross_entropy(OUTPUT, TARGET, label_smoothing=0.1),
    }


def test_what_a_loss_learns_is_the_sums():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output, target):
            return self.scale * F.cross_entropy(output, target)

    loss = WeightedSum({"scaled": Scaled(), "plain": F.cross_entropy})
    assert [name for name, _ in loss.named_parameters()] == ["parts.0.scale"]


def test_a_weight_of_no_loss_is_told():
    with pytest.raises(UsageError, match="a weight for 'ce', which is no loss of it"):
        WeightedSum({"plain": F.cross_entropy}, {"ce": 1.0})


def test_class_weights_move_to_the_device_with_the_sum():
    weighted = partial(F.cross_entropy, weight=torch.ones(3))
    loss = WeightedSum({"weighted": weighted, "plain": F.cross_entropy}).to("meta")
    assert loss.losses["weighted"].keywords["weight"].device.type == "meta"
    assert loss.losses["plain"] is F.cross_entropy


def test_its_losses_are_columns_of_the_log():
    assert list(WeightedSum.columns({"losses": {"a": {"type": "mse_loss"}, "b": "L1Loss"}})) == [
        "a",
        "b",
    ]
    assert list(WeightedSum.columns([{"a": "L1Loss"}])) == ["a"]
    assert not WeightedSum.columns({})
