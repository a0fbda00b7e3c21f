"""A formula computes what Python would, and nothing but arithmetic gets in."""

import math
import time
import types
from contextlib import suppress

import pytest

from base.errors import UsageError
from base.registry import LR_SCHEDULERS
from base.registry.arguments import Parameters, read
from base.registry.expression import ALLOWED, LONGEST, parse_expression


@pytest.mark.parametrize(
    "text",
    [
        "0.95 ** epoch",
        "1",
        "-2 * (epoch + 1) / 3 - +epoch",
        "0.1 ** (epoch // 3) + epoch % 2",
        "min(1, (epoch + 1) / 5)",
        "max(epoch, 2, 0.5)",
        "0.5 * (1 + cos(pi * epoch / 9)) + sin(epoch)",
        "sqrt(epoch) + exp(-epoch) + log(epoch + 1)",
        "1 / epoch if epoch > 0 else 1",
        "1 if epoch <= 1 else 2 if epoch == 2 else 3",
        "(epoch != 3) + (epoch < 4) * (epoch >= 2)",
        "1_000 * 1e-3",
    ],
)
def test_it_computes_what_python_would(text):
    names = {name: getattr(math, name) for name in ("sqrt", "exp", "log", "cos", "sin", "pi")}
    formula = parse_expression(text)
    for epoch in range(7):
        assert formula(epoch) == eval(text, names | {"epoch": epoch})


def test_it_may_go_over_lines():
    assert parse_expression("\n  0.5 **  # less\n  epoch\n")(2) == 0.25


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("__import__('os')", "\"__import__('os')\""),
        ("1 + epoch.real", "'epoch.real'"),
        ("step", "'step'"),
        ("abs(epoch)", "'abs(epoch)'"),
        ("2 * min(epoch)", "'min(epoch)'"),
        ("sqrt(1, 2)", "'sqrt(1, 2)'"),
        ("max(1, 2, key=3)", "'max(1, 2, key=3)'"),
        ("max(*epoch)", "'max(*epoch)'"),
        ("epoch ^ 2", "'epoch ^ 2'"),
        ("0 < epoch < 3", "'0 < epoch < 3'"),
        ("not epoch", "'not epoch'"),
        ("(lambda: 1)()", "'(lambda: 1)()'"),
        ("[epoch for epoch in epoch]", "'[epoch for epoch in epoch]'"),
        ("'a' * 9", "\"'a'\""),
        ("1 + True", "'True'"),
        ("2j", "'2j'"),
        ("(epoch := 3)", "'(epoch := 3)'"),
        ("0.95 **", "'0.95 **'"),
        ("epoch 2", "'epoch 2'"),
        ("", "'()'"),
    ],
)
def test_all_else_is_refused_and_named(text, found):
    with pytest.raises(ValueError, match=r"^expected a formula of ") as caught:
        parse_expression(text)
    assert str(caught.value).startswith(f"expected a formula of {ALLOWED}; found ")
    assert found in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["9**9**9**9", "-" * 190 + "9", "(" * 99 + "9" + ")" * 99, "((" * 90, "9" * 199, "9**99" * 30],
)
def test_no_text_takes_long(text):
    started = time.process_time()
    with suppress(ValueError, UsageError):
        parse_expression(text)(3)
    assert time.process_time() - started < 0.5


def test_a_text_has_a_longest_length():
    assert parse_expression("1" + "+1" * (LONGEST // 2 - 1))(0) == LONGEST // 2
    with pytest.raises(ValueError, match=f"of up to {LONGEST} characters, found {LONGEST + 1}"):
        parse_expression("1" + "+1" * (LONGEST // 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / (epoch - 5)", r"'1 / \(epoch - 5\)' has no value at epoch 5: .*division"),
        ("(4 - epoch) ** 0.5", "has no value at epoch 5: "),
        ("9 ** 9 ** epoch", "has no value at epoch 5: math range error"),
        ("1e308 * 2 * epoch", "has no value at epoch 5: it is inf"),
    ],
)
def test_an_epoch_without_a_finite_value_is_named(text, message):
    with pytest.raises(UsageError, match=message):
        parse_expression(text)(5)


def test_it_is_a_plain_function_of_which_torch_saves_nothing():
    assert type(parse_expression("epoch")) is types.FunctionType


class TestWhereAConfigStatesIt:
    def read(self, value):
        found = Parameters("LambdaLR", LR_SCHEDULERS, ["optimizer"])
        return read(value, found.by_name["lr_lambda"].annotation)

    def test_a_text_or_a_list_of_texts_becomes_functions(self):
        assert self.read("0.5 ** epoch")(2) == 0.25
        assert [formula(3) for formula in self.read(["1", "epoch"])] == [1, 3]

    @pytest.mark.parametrize("value", ["0.5 ^ epoch", ["1", "0.5 ^ epoch"]])
    def test_what_is_wrong_in_a_text_is_said(self, value):
        with pytest.raises(ValueError, match=r"; found '0\.5 \^ epoch'$"):
            self.read(value)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(5, " or a list, found 5"), ([5], ", found 5"), ({}, " or a list, found a mapping")],
    )
    def test_what_is_no_text_is_told_what_to_write(self, value, expected):
        words = r"a formula such as '0.95 \*\* epoch'"
        with pytest.raises(ValueError, match=f"^expected {words}{expected}$"):
            self.read(value)
