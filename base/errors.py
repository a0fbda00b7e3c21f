"""The one family of errors a user can cause, each with the exit code it ends the process with."""

import difflib
import json
import os
import re
import reprlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

KeyPath = tuple[str | int, ...]


class UserError(Exception):
    """Something the user can mend; shown as its message alone, without a traceback."""

    exit_code = 2


class UsageError(UserError):
    """A command that cannot be carried out as it was given."""


class DataError(UserError):
    """Data that is missing, damaged or does not fit."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or does not fit."""

    exit_code = 3


class WriteError(UserError):
    """A disk that is full or a place that cannot be written."""

    exit_code = 4


class DivergedError(UserError):
    """A loss, a gradient or a weight that is no longer finite."""

    exit_code = 5


class OutOfMemoryError(UserError):
    """A step for which the device or the machine has not enough memory."""

    exit_code = 5


class StoppedError(UserError):
    """A run ended by a signal after its state was saved; `exit_code` is 130 or 143."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class ConfigIssue:
    """What is wrong with one key of a config, and where it was read: "FILE:LINE:COLUMN"."""

    path: KeyPath
    message: str
    where: str = ""

    def __str__(self) -> str:
        parts = (self.where, ".".join(map(str, self.path)), self.message)
        text = ": ".join(part for part in parts if part)
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ConfigError(UserError):
    """All issues of a config at once, one line each."""

    def __init__(self, issues: Iterable[ConfigIssue]) -> None:
        self.issues = list(dict.fromkeys(issues))
        super().__init__("\n".join(map(str, self.issues)))


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return " (did you mean 'X'?)" for the nearest candidate, or "" when none is near."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    initials = _initials(name)
    name = name.lower()
    near = [low for low, full in by_lower.items() if _initials(full) == name or initials == low]
    near += difflib.get_close_matches(name, by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""


def _initials(name: str) -> str | None:
    """Return "lr" for "learning_rate" and "LearningRate", None for a single word."""
    words = re.findall(r"[A-Z]?[a-z0-9]+", name)
    return "".join(word[0] for word in words).lower() if len(words) > 1 else None


def format_value(value: Any) -> str:
    """Return a value of a config on one short line, as the config writes it."""
    if isinstance(value, dict):
        return "a mapping"
    return json.dumps(value) if isinstance(value, bool | None) else reprlib.repr(value)


@contextmanager
def exit_on_user_error(*, debug: bool = False) -> Iterator[None]:
    """End the process with the error's message and exit code; `debug` shows its traceback."""
    try:
        yield
    except UserError as error:
        if debug:
            raise
        # of several processes all meet an issue, so one shows it; their data differ
        if os.environ.get("RANK", "0") == "0" or isinstance(error, DataError | DivergedError):
            print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
