"""The losses."""

import pytest
import torch

from model.loss import nll_loss


def test_nll_loss_is_the_mean_negative_log_probability_of_the_targets():
    probabilities = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    loss = nll_loss(probabilities.log(), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(-(torch.tensor([0.5, 0.1]).log().mean().item()))
