"""A formula of `epoch` in a config, such as "0.95 ** epoch": read node by node, never `eval`ed."""

import ast
import math
import operator
from collections.abc import Callable

from base.errors import UsageError, format_value

LONGEST = 200  # characters
FUNCTIONS = {f.__name__: f for f in (min, max, math.sqrt, math.exp, math.log, math.cos, math.sin)}
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Mod: operator.mod,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Pow: math.pow,
    ast.UAdd: operator.pos, ast.USub: operator.neg,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
ALLOWED = f"numbers, epoch, pi, + - * / // % **, < <= > >= == !=, if else, {', '.join(FUNCTIONS)}"


def parse_expression(text: str) -> Callable[[float], float]:
    """Return the function of `epoch` that a text states, for which torch saves no state.

    All numbers are floats, none of which takes long to compute. The function raises UsageError
    where it has no finite value.

    Raises: ValueError where the text is no such formula, or too long.
    """
    if len(text) > LONGEST:
        raise ValueError(f"expected a formula of up to {LONGEST} characters, found {len(text)}")
    try:
        compute = _compiled(ast.parse(f"({text}\n)", mode="eval").body)  # may go over lines
    except (SyntaxError, RecursionError, MemoryError):  # the last: nested too deep
        raise _refusal(text) from None

    def evaluate(epoch: float) -> float:
        try:
            value = float(compute(float(epoch)))
            if not math.isfinite(value):
                raise OverflowError(f"it is {value}")
            return value
        except (ArithmeticError, ValueError) as error:
            raise UsageError(f"{text!r} has no value at epoch {epoch}: {error}") from error

    return evaluate


def _refusal(found: str) -> ValueError:
    return ValueError(f"expected a formula of {ALLOWED}; found {format_value(found)}")


def _compiled(node: ast.expr) -> Callable[[float], float]:
    """Return what a node of a formula computes, if it is of the few kinds that one is made of."""
    function, parts = None, []
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return lambda epoch: float(value)
        case ast.Name(id="epoch" | "pi" as name):
            return lambda epoch: epoch if name == "epoch" else math.pi
        case ast.UnaryOp(op=op, operand=operand):
            function, parts = OPERATORS.get(type(op)), [operand]
        case (
            ast.BinOp(left=left, op=op, right=right)
            | ast.Compare(left=left, ops=[op], comparators=[right])
        ):
            function, parts = OPERATORS.get(type(op)), [left, right]
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if parts:
            takes_one = name not in ("min", "max")
            function = FUNCTIONS.get(name) if (len(parts) == 1) == takes_one else None
        case ast.IfExp(test=test, body=body, orelse=orelse):
            is_met, yes, no = map(_compiled, (test, body, orelse))
            return lambda epoch: yes(epoch) if is_met(epoch) else no(epoch)
    if function is None:
        raise _refusal(ast.unparse(node))
    operands = [_compiled(part) for part in parts]
    return lambda epoch: function(*(operand(epoch) for operand in operands))
