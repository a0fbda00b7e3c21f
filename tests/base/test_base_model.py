"""The contract of models."""

import pytest
import torch
from torch import nn

from base import BaseModel


class Small(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(10, 10).requires_grad_(False)
        self.trained = nn.Linear(40, 30)


def test_a_model_says_how_many_parameters_are_trained():
    shown = str(Small())
    assert "(trained): Linear(in_features=40" in shown
    assert shown.endswith("\nTrainable parameters: 1,230")


def test_a_model_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Small has no forward method"):
        Small()(torch.ones(1))
