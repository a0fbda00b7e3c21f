"""Which samples are held back for validation: a share, a count, or a fold, chosen by the seed."""

import re

import pytest

from base.data.split import split_indices
from base.errors import DataError, UsageError


@pytest.mark.parametrize(("total", "num_folds"), [(10, 5), (11, 3), (7, 7), (100, 2)])
def test_folds_are_disjoint_and_even_and_cover_all(total, num_folds):
    held_back: list[int] = []
    for fold in range(1, num_folds + 1):
        training, validation = split_indices(range(total), f"{fold}/{num_folds}", seed=3)
        assert sorted([*training.tolist(), *validation.tolist()]) == list(range(total))
        held_back += validation.tolist()
        assert len(validation) in (total // num_folds, total // num_folds + 1)
    assert sorted(held_back) == list(range(total))


def test_the_seed_chooses_the_folds_and_the_first_is_the_share_of_that_size():
    def validation(part, seed=3):
        return split_indices(range(50), part, seed=seed)[1].tolist()

    assert validation("1/5") == validation("1/5") == validation(0.2) == validation(10)
    assert validation("1/5") != validation("1/5", seed=4)
    assert validation("1/5") != list(range(10))


@pytest.mark.parametrize("part", ["0/5", "6/5", "a/b", "2/", "0.2", "-1/5", "1/0", " 1/5"])
def test_what_is_no_fold_is_refused(part):
    message = f"validation_split is {part!r}, expected a share, a count, or a fold i/k such as 2/5"
    with pytest.raises(UsageError, match=re.escape(message)):
        split_indices(range(50), part, seed=3)


def test_folds_that_leave_nothing_to_train_or_validate_on_are_refused():
    with pytest.raises(UsageError, match="4 samples cannot be cut into 5 folds"):
        split_indices(range(4), "1/5", seed=3)
    with pytest.raises(DataError, match="validation_split of 1/1 leaves none to train on"):
        split_indices(range(4), "1/1", seed=3)
