"""Scalars of YAML 1.2: what they are read as, and that what is written is read as the same."""

import math
import random

import pytest

from base.config.merge import parse_overrides
from base.config.scalars import dump_yaml
from base.config.source import parse_text
from base.errors import ConfigError

STRINGS = (
    "", " ", " x", "x ", "null", "~", "Null", "true", "off", "yes", "1", "-1", "1e-3", "1e999",
    "0o7", "010", ".inf", ".nan", "1:30", "2024-01-31", "=", "<<", "a: b", "a #b", "- a", "? a",
    "#a", "'", '"', "%a", "@a", "!a", "&a", "*a", "|", ">", "[", "{a", "---", "...", "\\", "a\nb",
    "\n", " a\n b\n", "a\tb", "\t", "\r", "\x07", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "é",
    "\U0001f600", "9" * 1001, "word " * 60, "x" * 300,
)  # fmt: skip
NUMBERS = (0, -7, 10**40, 0.0, -0.0, 1e-05, 1e300, 0.1, 5e-324, math.inf, -math.inf)


def reread(text, name="c.yaml"):
    return parse_text(text, name).values


def lines_of(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    return str(caught.value).splitlines()


class TestScalars:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-3", 0.001),
            ("1E5", 100000.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("-2.5e+3", -2500.0),
            ("010", 10),
            ("-7", -7),
            ("+7", 7),
            ("0o10", 8),
            ("0x1F", 31),
            (".inf", math.inf),
            ("-.INF", -math.inf),
            ("+.Inf", math.inf),
            ("true", True),
            ("FALSE", False),
            ("~", None),
            ("Null", None),
            ("", None),
            ("off", "off"),
            ("yes", "yes"),
            ("No", "No"),
            ("y", "y"),
            ("1:30", "1:30"),
            ("2024-01-31", "2024-01-31"),
            ("1_000", "1_000"),
            ("0b11", "0b11"),
            ("1e", "1e"),
            (".", "."),
            ("=", "="),
            ("nan", "nan"),
            ("\u0661", "\u0661"),
            ("'1'", "1"),
            ('"null"', "null"),
            ('"\\ud83d\\ude00"', "\U0001f600"),
        ],
    )
    def test_are_those_of_yaml_1_2(self, text, value):
        for source in (parse_text(f"a: {text}\n", "c.yaml"), parse_overrides([f"a={text}"])):
            assert source.values == {"a": value}
            assert type(source.values["a"]) is type(value)

    def test_nan_is_a_number(self):
        assert all(math.isnan(value) for value in reread("a: [.nan, .NaN, .NAN]")["a"])

    def test_in_blocks_are_strings(self):
        assert reread("a: |\n  1\nb: >-\n  1\n  2\n") == {"a": "1\n", "b": "1 2"}

    def test_as_keys_stay_as_written(self):
        assert reread("{1: a, 1e3: b, null: c, on: d}") == {
            "1": "a",
            "1e3": "b",
            "null": "c",
            "on": "d",
        }

    def test_that_no_number_can_hold_are_refused(self):
        text = f"a: 1e999\nb: {'1' * 5000}\nc: 0x{'f' * 5000}\n"
        assert lines_of(reread, text) == [
            "c.yaml:1:4: a: 1e999 is too large; infinity is written .inf",
            "c.yaml:2:4: b: expected at most 1,000 digits, found 5,000",
            "c.yaml:3:4: c: expected at most 1,000 digits, found 5,002",
        ]

    def test_with_nul_or_half_a_surrogate_pair_are_refused(self):
        text = '{"a": "\\ud83d",\n"b": "\\u0000",\n"\\udc00": 1}'
        assert lines_of(reread, text, name="c.json") == [
            r"c.json:1:7: a: expected text, found the character '\ud83d'",
            r"c.json:2:6: b: expected text, found the character '\x00'",
            r"c.json:3:1: expected text, found the character '\udc00'",
        ]


class TestText:
    @pytest.mark.parametrize("value", STRINGS)
    def test_of_a_string_is_read_as_that_string(self, value):
        found = reread(dump_yaml({"key": value, value: [value]}))
        assert found == {"key": value, value: [value]}

    @pytest.mark.parametrize("value", [*NUMBERS, None, True, False, [], {}])
    def test_of_a_value_is_read_as_that_value(self, value):
        found = reread(dump_yaml({"key": value}))["key"]
        assert repr(found) == repr(value)

    def test_of_nan_is_read_as_nan(self):
        assert math.isnan(reread(dump_yaml({"key": math.nan}))["key"])

    def test_of_any_nest_is_read_as_that_nest(self):
        rng = random.Random(0)

        def value(depth):
            kind = rng.randrange(5 if depth < 4 else 3)
            if kind == 0:
                return rng.choice(NUMBERS)
            if kind <= 2:
                return rng.choice(STRINGS) + rng.choice(STRINGS)
            items = [value(depth + 1) for _ in range(rng.randrange(4))]
            return items if kind == 3 else {rng.choice(STRINGS): item for item in items}

        for _ in range(100):
            tree = {"a": value(0), "b": value(0)}
            found = reread(dump_yaml(tree))
            assert repr(found) == repr(tree)

    def test_leaves_plain_what_is_plain(self):
        text = dump_yaml({"name": "lenet", "lr": 1e-05, "monitor": "min val_loss", "off": "1e-3"})
        assert text == "name: lenet\nlr: 1.0e-05\nmonitor: min val_loss\noff: '1e-3'\n"
