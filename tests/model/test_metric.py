"""The metrics."""

import pytest
import torch

from model.metric import accuracy, top_k_acc

OUTPUT = torch.tensor([[0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.9], [0.4, 0.3, 0.2, 0.1]])
TARGET = torch.tensor([0, 2, 2])


def test_accuracy_tells_whose_highest_score_is_right():
    assert accuracy(OUTPUT, TARGET).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("k", "right"), [(1, [True, False, False]), (2, [True, True, False]), (3, [True] * 3)]
)
def test_top_k_tells_whose_target_is_among_the_k_highest(k, right):
    assert top_k_acc(OUTPUT, TARGET, k=k).tolist() == right


def test_top_k_takes_three_as_the_ancestor_did():
    assert torch.equal(top_k_acc(OUTPUT, TARGET), top_k_acc(OUTPUT, TARGET, k=3))


def test_both_are_marked_as_metrics_per_sample():
    assert accuracy.per_sample
    assert top_k_acc.per_sample
