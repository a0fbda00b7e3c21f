"""Errors of the user: their exit codes, their lines, and what they suggest."""

import pytest

from base.errors import (
    CheckpointError,
    ConfigError,
    ConfigIssue,
    DataError,
    DivergedError,
    StoppedError,
    UsageError,
    WriteError,
    did_you_mean,
    exit_on_user_error,
    format_value,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError([]), 2),
        (UsageError(""), 2),
        (DataError(""), 3),
        (CheckpointError(""), 3),
        (WriteError(""), 4),
        (DivergedError(""), 5),
        (StoppedError("", exit_code=143), 143),
    ],
)
def test_an_error_ends_the_process_with_its_code(error, code):
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        raise error
    assert caught.value.code == code


def test_an_error_is_shown_without_a_traceback(capsys):
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UsageError("what to do")
    assert capsys.readouterr().err == "what to do\n"


def test_debug_keeps_the_traceback():
    with pytest.raises(UsageError, match="what to do"), exit_on_user_error(debug=True):
        raise UsageError("what to do")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(KeyError), exit_on_user_error():
        raise KeyError("bug")


def test_issues_are_lines_of_place_path_and_message_each_shown_once():
    issues = [
        ConfigIssue(("a", 0), "wrong", "c.yaml:3:1"),
        ConfigIssue((), "alone"),
        ConfigIssue(("a", 0), "wrong", "c.yaml:3:1"),
        ConfigIssue(("a\nb",), "é\x1b[0m\udcff", "command line"),
    ]
    assert str(ConfigError(issues)).split("\n") == [
        "c.yaml:3:1: a.0: wrong",
        "alone",
        r"command line: a\nb: é\x1b[0m\udcff",
    ]


@pytest.mark.parametrize(
    ("name", "candidates", "near"),
    [
        ("epoch", ["seed", "epochs"], "epochs"),
        ("adamw", ["Adam", "AdamW"], "AdamW"),
        ("learning_rate", ["betas", "lr"], "lr"),
        ("bs", ["batch_size", "shuffle"], "batch_size"),
        ("SWA", ["SaveBest", "StochasticWeightAveraging"], "StochasticWeightAveraging"),
        ("classes", ["num_classes"], "num_classes"),
        ("xyz", ["epochs", "seed"], None),
        ("", ["a", "b_c"], None),
        ("anything", [], None),
    ],
)
def test_the_nearest_name_is_suggested(name, candidates, near):
    assert did_you_mean(name, candidates) == (f" (did you mean {near!r}?)" if near else "")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (1e-5, "1e-05"),
        ("a\nb", r"'a\nb'"),
        ({"a": 1}, "a mapping"),
        ([1, "x"], "[1, 'x']"),
        (list(range(99)), "[0, 1, 2, 3, 4, 5, ...]"),
        ("x" * 99, "'xxxxxxxxxxxx...xxxxxxxxxxxxx'"),
    ],
)
def test_a_value_is_shown_on_one_short_line(value, text):
    assert format_value(value) == text
