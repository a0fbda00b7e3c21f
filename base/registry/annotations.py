"""Annotations of parameters: what a config may write for them, as types of JSON and in words."""

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

from base.errors import format_value
from base.registry import REGISTRIES
from base.registry.expression import parse_expression


def read(value: Any, annotation: Any) -> Any:
    """Return a config's value as an annotation asks for it; what cannot be judged as it is.

    A name becomes the dtype or enum member it names, a list a tuple or a tensor of floats, a
    formula the function that it states.

    Raises: ValueError where it is of another type or out of range, saying what is expected.
    """
    try:
        return TypeAdapter(to_json_type(annotation)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        causes = (problem.get("ctx", {}).get("error") for problem in problems)
        if said := [cause for cause in causes if cause and str(cause)]:  # by the formula's parser
            raise said[0] from None
        expected = describe_type(annotation, problems[0])
        raise ValueError(f"expected {expected}, found {format_value(value)}") from None
    except (PydanticUserError, TypeError, NameError, AttributeError):
        return value  # a type that no config can state, or one that is not to be found


def to_json_type(annotation: Any) -> Any:
    """Return an annotation with what JSON does not know replaced by what a config writes for it."""
    return _translate(annotation)[0]


def describe_type(annotation: Any, problem: ErrorDetails | None = None) -> str:
    """Return in words what an annotation takes, or the range that a value has left."""
    if problem and problem["type"].startswith(("greater", "less", "finite")):
        words = problem["msg"].removeprefix("Input should be ")
        words = words.replace("greater than or equal to", "at least")
        return words.replace("less than or equal to", "at most")
    *words, last = dict.fromkeys(_translate(annotation)[1])
    return f"{', '.join(words)} or {last}" if words else last


def _translate(annotation: Any) -> tuple[Any, list[str]]:
    """Return the type of what a config writes for an annotation, and words for each kind of it."""
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        return annotation, _translate(arguments[0])[1]
    if kind is Literal:
        return annotation, [format_value(choice) for choice in arguments]
    if (kind, arguments) == FORMULA:
        formula = Annotated[str, AfterValidator(parse_expression)]
        return formula, ["a formula such as '0.95 ** epoch'"]
    if kind in (Union, UnionType):
        return _translate_union(arguments)
    if kind in (tuple, *LISTS):
        return _translate_list(kind, arguments)
    if kind in (dict, Mapping):
        return dict[tuple(map(to_json_type, arguments))] if arguments else dict, ["a mapping"]
    if _is_enum(kind):
        member = Annotated[str | int, AfterValidator(partial(_member, kind))]
        return member, [repr(name) for name in kind.__members__]
    if isinstance(kind, type) and issubclass(kind, BUILT):
        return Callable, ["{type: NAME}"]  # nothing in JSON passes as callable
    return SCALARS.get(kind, (annotation, ["{type: NAME}"]))


def _translate_union(members: Sequence[Any]) -> tuple[Any, list[str]]:
    """Leave out text beside an enum or a dtype, whose names it gives, and try a tensor last."""
    named = any(_is_enum(member) or member is torch.dtype for member in members)
    members = [member for member in members if not (named and member is str)]
    hidden = {int, torch.Tensor} if float in members else {}
    words = [word for m in members if m not in hidden for word in _translate(m)[1]]
    members.sort(key=lambda member: member is torch.Tensor)
    return Union[tuple(map(to_json_type, members))], words  # noqa: UP007


def _translate_list(kind: Any, items: Sequence[Any]) -> tuple[Any, list[str]]:
    types = tuple(item if item is ... else to_json_type(item) for item in items)
    words = ", ".join("..." if item is ... else describe_type(item) for item in items)
    if kind is tuple:
        return (tuple[types], [f"[{words}]"]) if items else (tuple, ["a list"])
    return (list[types], [f"[{words}, ...]"]) if {*items} - {Any} else (list, ["a list"])


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


LISTS = (list, Sequence, Iterable, Collection)
BUILT = tuple(registry.base for registry in REGISTRIES.values() if registry.base)
FORMULA = (Callable, ([int], float))  # origin and arguments: a function of an epoch or a step
DTYPES = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
SCALARS = {
    NoneType: (None, ["null"]),
    bool: (bool, ["true", "false"]),
    int: (int, ["a whole number"]),
    float: (int | float, ["a number"]),  # a whole number stays one
    str: (str, ["text"]),
    Path: (Path, ["text"]),
    torch.Tensor: (
        Annotated[int | float | list[Any], AfterValidator(_tensor)],
        ["a list", "number"],
    ),
    torch.dtype: (
        Annotated[Literal[tuple(DTYPES)], AfterValidator(DTYPES.get)],
        ["a dtype such as 'float32'"],
    ),
}
