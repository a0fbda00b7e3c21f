"""The metrics."""

import pytest
import torch

from model.metric import accuracy, top_k_acc

OUTPUT = torch.tensor([[0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.9], [0.4, 0.3, 0.2, 0.1]])
TARGET = torch.tensor([0, 2, 2])


def test_accuracy_is_the_share_of_highest_scores_that_are_right():
    assert accuracy(OUTPUT, TARGET) == torch.tensor(1 / 3)


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 3), (2, 2 / 3), (3, 1)])
def test_top_k_is_the_share_of_targets_among_the_k_highest(k, share):
    assert top_k_acc(OUTPUT, TARGET, k=k) == torch.tensor(share)


def test_top_k_takes_three_as_the_ancestor_did():
    assert top_k_acc(OUTPUT, TARGET) == top_k_acc(OUTPUT, TARGET, k=3)


def test_metrics_stay_tensors_so_that_no_step_waits_for_a_device():
    assert isinstance(accuracy(OUTPUT, TARGET), torch.Tensor)
    assert isinstance(top_k_acc(OUTPUT, TARGET), torch.Tensor)
