"""What counts as better, and when it is time to stop."""

import math

import pytest

from base.errors import UsageError
from base.runtime.monitor import Monitor


def improvements(monitor: Monitor, values: list[float]) -> list[bool]:
    return [
        monitor.update({"epoch": epoch, "val_loss": value})
        for epoch, value in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("min", [3, 2, 2, 2.5, 1], [True, True, False, False, True]),
        ("max", [1, 2, 2, 1.5, 3], [True, True, False, False, True]),
        ("min", [math.nan, 2, math.nan, 1], [False, True, False, True]),
        ("max", [math.nan, -2, math.nan, 1], [False, True, False, True]),
        ("max", [-math.inf, -math.inf, 0], [True, False, True]),
    ],
)
def test_only_a_better_number_improves(mode, values, expected):
    monitor = Monitor(f"{mode} val_loss")
    assert improvements(monitor, values) == expected
    assert monitor.num_bad_epochs == len(values) - monitor.best_epoch
    assert monitor.best == values[monitor.best_epoch - 1]


@pytest.mark.parametrize("bad", [2.0, 3.0, math.nan])
def test_it_stops_after_exactly_so_many_epochs_without_improvement(bad):
    monitor = Monitor("min val_loss", early_stop=3)
    improvements(monitor, [2.0, bad, bad])
    assert not monitor.should_stop
    improvements(monitor, [bad])
    assert monitor.should_stop


def test_an_improvement_starts_the_count_anew_and_zero_never_stops():
    for early_stop, values in ((2, [3, 3, 2, 2]), (0, [1.0] * 50)):
        monitor = Monitor("min val_loss", early_stop=early_stop)
        improvements(monitor, values)
        assert not monitor.should_stop


def test_off_asks_for_no_column():
    monitor = Monitor("off", early_stop=1)
    assert not monitor.update({})
    assert not monitor.should_stop


def test_a_column_that_was_not_logged_is_named_with_the_nearest():
    message = r"no column 'val_los' was logged \(did you mean 'val_loss'\?\)"
    with pytest.raises(UsageError, match=message):
        Monitor("min val_los").update({"epoch": 1, "val_loss": 1.0})


def test_the_count_survives_a_resume():
    monitor = Monitor("min val_loss", early_stop=3)
    improvements(monitor, [2, 3, 3])
    resumed = Monitor("min val_loss", early_stop=3)
    resumed.load_state_dict(monitor.state_dict())
    assert resumed.best == 2
    assert improvements(resumed, [2]) == [False]
    assert resumed.should_stop
