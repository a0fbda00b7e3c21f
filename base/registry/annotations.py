"""Annotations of parameters: what a config may state for them, as values and in plain words."""

import enum
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from base.data.order import SampleOrder
from base.errors import format_value
from base.registry.expression import parse_expression

UNIONS = (Union, UnionType)
BUILT = (torch.nn.Module, torch.optim.Optimizer, LRScheduler, Dataset, SampleOrder)
LISTS = (list, Sequence, Iterable, Collection)
FORMULA = (Callable, ([int], float))  # origin and arguments: a function of an epoch or a step
DTYPES = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
WORDS = {
    NoneType: ["null"], bool: ["true", "false"], int: ["a whole number"], float: ["a number"],
    str: ["text"], Path: ["text"], dict: ["a mapping"], Mapping: ["a mapping"],
    torch.Tensor: ["a list", "number"], torch.dtype: ["a dtype such as 'float32'"],
}  # fmt: skip
RANGES = {
    "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}", "less_than_equal": "at most {le}",
    "finite_number": "a finite number",
}  # fmt: skip


def read(value: Any, annotation: Any) -> Any:
    """Return a config's value as an annotation asks for it; what cannot be judged as it is.

    A name becomes the dtype or enum member it names, a list a tuple or a tensor of floats, a
    formula the function that it states.

    Raises: ValueError where it is of another type or out of range, saying what is expected.
    """
    try:
        return TypeAdapter(_stated(annotation)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        causes = (problem.get("ctx", {}).get("error") for problem in problems)
        if said := [cause for cause in causes if cause and str(cause)]:  # by the formula's parser
            raise said[0] from None
        expected = in_words(annotation, problems[0])
        raise ValueError(f"expected {expected}, found {format_value(value)}") from None
    except (PydanticUserError, TypeError, NameError, AttributeError):
        return value  # a type that no config can state, or one that is not to be found


def in_words(annotation: Any, problem: ErrorDetails | None = None) -> str:
    """Return what an annotation takes, or the range that a value has left."""
    if problem and problem["type"] in RANGES:
        return RANGES[problem["type"]].format_map(problem.get("ctx", {}))
    *words, last = dict.fromkeys(_words(annotation))
    return f"{', '.join(words)} or {last}" if words else last


def _words(annotation: Any) -> list[str]:
    """Return each kind of value that an annotation takes."""
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        return _words(arguments[0])
    if kind in UNIONS:
        hidden = {int, torch.Tensor} if float in arguments else {}
        return [word for a in _members(annotation) if a not in hidden for word in _words(a)]
    if kind is Literal:
        return [format_value(choice) for choice in arguments]
    if _is_enum(kind):
        return [repr(name) for name in kind.__members__]
    if kind is tuple and arguments and ... not in arguments:
        return [f"[{', '.join(map(in_words, arguments))}]"]
    if kind is tuple or kind in LISTS:
        return [f"[{in_words(arguments[0])}, ...]" if {*arguments} - {Any} else "a list"]
    if (kind, arguments) == FORMULA:
        return ["a formula such as '0.95 ** epoch'"]
    return WORDS.get(kind, ["{type: NAME}"])


def _stated(annotation: Any) -> Any:
    """Return an annotation with what JSON does not know replaced by what a config writes for it."""
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind is float:
        return int | float  # a whole number stays one
    if kind is torch.Tensor:
        return Annotated[int | float | list[Any], AfterValidator(_tensor)]
    if (kind, arguments) == FORMULA:
        return Annotated[str, AfterValidator(parse_expression)]
    if kind is torch.dtype:
        return Annotated[Literal[tuple(DTYPES)], AfterValidator(DTYPES.get)]
    if _is_enum(kind):
        return Annotated[str | int, AfterValidator(partial(_member, kind))]
    if isinstance(kind, type) and issubclass(kind, BUILT):
        return Callable  # as which nothing in JSON passes: it takes a node
    if kind in UNIONS:  # of two that take a value the first counts: a tensor is the last resort
        members = sorted(_members(annotation), key=lambda member: member is torch.Tensor)
        return Union[tuple(map(_stated, members))]  # noqa: UP007
    if kind in LISTS:
        return list[_stated(arguments[0])] if arguments else list
    if kind in (tuple, dict) and arguments:
        return kind[tuple(part if part is ... else _stated(part) for part in arguments)]
    return annotation


def _members(union: Any) -> list[Any]:
    """Return the members of a union; text beside an enum or a dtype is one of its names."""
    members = get_args(union)
    named = any(_is_enum(member) or member is torch.dtype for member in members)
    return [member for member in members if not (named and member is str)]


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _member(kind: type[enum.Enum], name: str | int) -> enum.Enum:
    """Return the member of that name or value, in capital letters or small."""
    by_name = {str(member.value).lower(): member for member in kind}
    by_name |= {name.lower(): member for name, member in kind.__members__.items()}
    if str(name).lower() not in by_name:
        raise ValueError
    return by_name[str(name).lower()]


def _tensor(value: Any) -> torch.Tensor:
    try:
        return torch.tensor(value, dtype=torch.get_default_dtype())
    except (TypeError, ValueError, RuntimeError) as error:  # text, or a number beyond all range
        raise ValueError from error
