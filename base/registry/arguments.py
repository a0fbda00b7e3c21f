"""What a class or function takes from a config, and as what types, as its signature tells it."""

import inspect
import json
from collections import abc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import EnumType
from functools import partial
from inspect import Parameter
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import torch
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails, PydanticCustomError
from torch import nn

from base.errors import did_you_mean, format_value
from base.registry import REGISTRIES
from base.registry.expression import parse_expression
from base.registry.registry import Registry

Args = dict[str, Any] | list[Any]

# What the project passes only where the config leaves it and these other arguments out.
FALLBACKS = {
    "T_max": (), "total_steps": ("epochs",), "max_lr": (), "fused": ("foreach", "differentiable"),
}  # fmt: skip
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


class Parameters:
    """The parameters of what a name stands for, as a config may set them.

    `runtime` names the arguments that the project itself passes, such as an optimizer's `params`.

    Raises: ConfigError where the name is unknown, or its module cannot be imported.
    """

    def __init__(self, name: str, registry: Registry, runtime: Collection[str] = ()) -> None:
        self.name, self.registry, self.runtime = name, registry, runtime
        self.target = registry.find(name)
        self.is_called_later = registry.call_args > 0 and not inspect.isclass(self.target)
        found = _parameters(self.target)
        later = [p.name for p in found[: registry.call_args]] if self.is_called_later else []
        self._passed = {*runtime, *later} - FALLBACKS.keys()
        kinds = {p.kind for p in found}
        self.has_var_positional = Parameter.VAR_POSITIONAL in kinds
        followed = _follow_keywords(self.target) if Parameter.VAR_KEYWORD in kinds else {}
        self.has_open_keywords = followed is None
        variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        named = {p.name: p for p in found if p.kind not in variadic}
        self.by_name = (followed or {}) | named
        self.required = [n for n, p in named.items() if p.default is p.empty and n not in later]
        by_position = [name for name, p in named.items() if p.kind is not p.KEYWORD_ONLY]
        self.positional = [name for name in by_position if name not in self._passed]

    def argument_name(self, key: str | int) -> str:
        """Return the name of an argument given by name or position; "" for one of *args."""
        if isinstance(key, str):
            return key
        return self.positional[key] if key < len(self.positional) else ""

    def named(self, args: Args) -> dict[str, Any]:
        """Return the args by name, those of *args left out."""
        return {name: value for key, value in items(args) if (name := self.argument_name(key))}

    def annotation(self, argument: str) -> Any:
        """Return what an argument is annotated with, `Parameter.empty` where nothing tells."""
        return getattr(self.by_name.get(argument), "annotation", Parameter.empty)

    def check_name(self, argument: str) -> None:
        """Raise ValueError where the config cannot give this argument."""
        if argument in self._passed and argument in self.by_name:
            raise ValueError(f"{self.name} gets {argument!r} from the project; remove it")
        if argument and argument not in self.by_name and not self.has_open_keywords:
            near = did_you_mean(argument, self.by_name)
            raise ValueError(f"{self.name} takes no {argument!r}{near}")

    def check_number(self, args: Args) -> Iterator[str]:
        """Yield what is said of args that are too many, or missing and not just misspelled."""
        most = len(self.positional)
        if isinstance(args, list) and len(args) > most and not self.has_var_positional:
            yield f"{self.name} takes {most} args by position at most, found {len(args)}"
        given = self.named(args)
        hints = [did_you_mean(name, self.by_name) for name in given.keys() - self.by_name.keys()]
        for argument in self.required:
            if argument not in {*given, *self.runtime} and repr(argument) not in "".join(hints):
                yield f"{self.name} needs {argument!r}"

    def fill(self, given: dict[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is given with what the project passes; of `FALLBACKS` what is left open."""
        for name, value in runtime.items():
            is_left = not {name, *FALLBACKS.get(name, ())} & {*given}
            is_taken = self.has_open_keywords and name not in FALLBACKS
            if is_left if name in self.by_name else is_taken:
                given[name] = value
        return given


def _parameters(target: Any) -> list[Parameter]:
    """Return the parameters of a class or function, annotations kept as text resolved."""
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    names = getattr(function, "__globals__", {})
    parameters = inspect.signature(target).parameters.values()
    return [p.replace(annotation=_resolved(p.annotation, names)) for p in parameters]


def _resolved(annotation: Any, names: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    # An annotation is source code of the project or a library, never of a config. Torch imports
    # what it takes from collections.abc for type checkers only.
    try:
        return eval(annotation, vars(abc) | names)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Parameter.empty


def _follow_keywords(target: Any) -> dict[str, Parameter] | None:
    """Return what a target's **kwargs stands for, or None when nothing tells."""
    if target.__module__.startswith("torchmetrics."):
        return {}  # what is left is about ranks and caches, which are the trainer's
    made = None if inspect.isclass(target) else inspect.signature(target).return_annotation
    if inspect.isclass(made) and issubclass(made, nn.Module):  # as torchvision's builders say it
        # without a default are only those that the builder passes itself
        return {p.name: p for p in _parameters(made) if p.default is not p.empty}
    return None


def items(args: Args) -> Iterable[tuple[str | int, Any]]:
    """Return args with their names or positions."""
    return args.items() if isinstance(args, dict) else enumerate(args)


def read(value: Any, annotation: Any) -> Any:
    """Return a config's value as an annotation asks for it; what cannot be judged as it is.

    A name becomes the dtype or enum member it names, a list a tuple or a tensor of floats, a
    formula the function that it states.

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
    if isinstance(kind, EnumType):
        return Annotated[Any, AfterValidator(partial(_member, kind))]
    if isinstance(kind, type) and section_of(kind):
        return Callable  # as which nothing in JSON passes: it takes a node
    if kind in (Union, UnionType):
        has_enum = any(isinstance(one, EnumType) for one in arguments)  # which a text names
        members = [one for one in arguments if not (has_enum and one is str)]
        return Union[tuple(map(to_json_type, members))]  # noqa: UP007
    if kind in LISTS:
        return list[to_json_type(arguments[0])] if arguments else list
    if kind in (tuple, dict, Mapping) and arguments:
        return kind[tuple(part if part is ... else to_json_type(part) for part in arguments)]
    return annotation


def section_of(annotation: Any) -> Registry | None:
    """Return the section whose things an annotation asks for, if there is one."""
    for registry in REGISTRIES.values() if isinstance(annotation, type) else ():
        if registry.base and issubclass(annotation, registry.base):
            return registry
    return next(filter(None, map(section_of, get_args(annotation))), None)


def _expected(words: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "Input should be {words}", {"words": words})


def _member(kind: EnumType, name: Any) -> Any:
    """Return the member of an enum that has this name or value."""
    members = {str(member.value): member for member in kind} | {**kind.__members__}
    if str(name) not in members:
        raise _expected(" or ".join(map(repr, kind.__members__)))
    return members[str(name)]


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
