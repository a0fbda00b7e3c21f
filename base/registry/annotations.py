"""Annotations of parameters: what a config may write for them, as pydantic checks it."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import EnumType
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import torch
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails, PydanticCustomError

from base.errors import format_value
from base.registry import REGISTRIES
from base.registry.expression import parse_expression

BUILT = tuple(registry.base for registry in REGISTRIES.values() if registry.base)
LISTS = (list, Sequence, Iterable, Collection)
FORMULA = Callable[[int], float]  # a function of an epoch or a step
# What pydantic says, and how a config's reader says it.
WORDS = {
    "Input should be ": "", "a valid integer or a valid number": "a valid number",
    "a valid number or a number or a list of numbers": "a valid number",
    "a valid array": "a list", "a valid list": "a list", "a valid boolean": "true or false",
    "an object": "a mapping", "a valid dictionary": "a mapping", "callable": "{type: NAME}",
    "greater than or equal to": "at least", "less than or equal to": "at most",
    "Field required": "more items", "Tuple should have ": "", " after validation": "",
}  # fmt: skip


def read(value: Any, annotation: Any) -> Any:
    """Return a config's value as an annotation asks for it; what cannot be judged as it is.

    A name becomes the dtype that it names, a value the enum member that has it, a list a tuple or a
    tensor of floats, a formula the function that it states.

    Raises: ValueError where it is of another type or out of range, saying what is expected.
    """
    try:
        return TypeAdapter(to_json_type(annotation)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(describe_errors(error.errors(include_url=False))) from None
    except (PydanticUserError, TypeError, NameError, AttributeError):
        return value  # a type that no config can state, or one that is not to be found


def describe_errors(details: Sequence[ErrorDetails]) -> str:
    """Return what was expected and found, by what pydantic says of each member of a union."""
    for detail in details:
        if detail["type"] == "value_error":
            return str(detail["ctx"]["error"])
    depths = [sum(isinstance(key, int) for key in detail["loc"]) for detail in details]
    deepest = [d for d, depth in zip(details, depths, strict=True) if depth == max(depths)]
    ranges = [d for d in deepest if d["type"].startswith(("greater", "less", "finite"))]
    expected = " or ".join(dict.fromkeys(detail["msg"] for detail in ranges or deepest))
    for said, word in WORDS.items():
        expected = expected.replace(said, word)
    return f"expected {expected}, found {format_value(deepest[0]['input'])}"


def to_json_type(annotation: Any) -> Any:
    """Return an annotation with what JSON does not know replaced by what a config writes for it."""
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind is float:
        return int | float  # a whole number stays one
    if annotation in READERS:
        return Annotated[Any, AfterValidator(READERS[annotation])]
    if isinstance(kind, type) and issubclass(kind, BUILT):
        return Callable  # as which nothing in JSON passes: it takes a node
    if kind in (Union, UnionType):
        has_enum = any(isinstance(one, EnumType) for one in arguments)  # whose values are texts
        members = [one for one in arguments if not (has_enum and one is str)]
        return Union[tuple(map(to_json_type, members))]  # noqa: UP007
    if kind in LISTS:
        return list[to_json_type(arguments[0])] if arguments else list
    if kind in (tuple, dict, Mapping) and arguments:
        return kind[tuple(part if part is ... else to_json_type(part) for part in arguments)]
    return annotation


def _expected(words: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "Input should be {words}", {"words": words})


def _dtype(name: Any) -> torch.dtype:
    dtype = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype):
        raise _expected("a dtype such as 'float32'")
    return dtype


def _formula(text: Any) -> Callable[[float], float]:
    if not isinstance(text, str):
        raise _expected("a formula such as '0.95 ** epoch'")
    return parse_expression(text)


def _tensor(value: Any) -> torch.Tensor:
    try:
        if isinstance(value, bool):
            raise TypeError
        return torch.tensor(value, dtype=torch.get_default_dtype())
    except (TypeError, ValueError, RuntimeError):  # text, or a number beyond all range
        raise _expected("a number or a list of numbers") from None


# What a config writes for a type that JSON does not know, and what makes one of it.
READERS = {torch.Tensor: _tensor, torch.dtype: _dtype, FORMULA: _formula}
