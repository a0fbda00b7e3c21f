"""A node of the config and a registry make an object: args are checked first, then it is built.

A node is `{type: NAME, args: {...}}` or a bare name. `check` reports what is wrong and builds
nothing; `build` is the only place of the project that instantiates what a config names.
"""

import enum
import inspect
import json
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from base.errors import ConfigError, Mistake, did_you_mean
from base.registry import COLLATE_FNS, SAMPLERS, TRANSFORMS, NameLookupError, Registry

KeyPath = tuple[str | int, ...]
Finding = tuple[KeyPath, str]

# Arguments whose nodes are looked up in a section of their own; all others in that of their parent.
ARGUMENT_SECTIONS = {
    "transform": TRANSFORMS,
    "transforms": TRANSFORMS,
    "target_transform": TRANSFORMS,
    "sampler": SAMPLERS,
    "batch_sampler": SAMPLERS,
    "collate_fn": COLLATE_FNS,
}
# What torchmetrics' Metric takes from its **kwargs without naming it in a signature.
METRIC_ARGUMENTS = (
    "compute_on_cpu", "dist_sync_on_step", "process_group", "dist_sync_fn",
    "distributed_available_fn", "sync_on_compute", "compute_with_cache",
)  # fmt: skip
# What the project passes only where the config leaves it and these other arguments out.
FALLBACKS = {"T_max": (), "total_steps": ("epochs",)}
LIBRARIES = ("torch.", "torchvision.", "torchmetrics.")
DTYPES = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
UNIONS = (Union, UnionType)


def is_node(value: Any) -> bool:
    """Tell whether a value inside args describes an object to build."""
    return isinstance(value, Mapping) and "type" in value


def split_node(node: str | Mapping[str, Any]) -> tuple[str, dict[str, Any] | list[Any]]:
    """Return a node's type and args."""
    return (node, {}) if isinstance(node, str) else (node["type"], node.get("args") or {})


def check(
    node: str | Mapping[str, Any],
    registry: Registry,
    *,
    path: KeyPath,
    runtime: Collection[str] = (),
) -> Iterator[Finding]:
    """Yield (path, message) for everything wrong with a node and the nodes in its args.

    `runtime` names the arguments that the project itself passes, such as an optimizer's `params`.
    """
    name, args = split_node(node)
    try:
        target = registry.find(name)
    except NameLookupError as error:
        yield path, str(error)
        return
    parameters = Parameters(target, registry, runtime)
    path_to_args = (*path, "args") if isinstance(node, Mapping) and "args" in node else path
    yield from parameters.check_names(name, args, path=path_to_args)
    for key, value in _items(args):
        where = (*path_to_args, key)
        argument = parameters.argument_name(key)
        children = list(_child_nodes(value, where, ARGUMENT_SECTIONS.get(argument, registry)))
        for child, child_path, section in children:
            yield from check(child, section, path=child_path, runtime=runtime)
        if not children:
            yield from parameters.check_type(argument, value, path=where)


def build(
    node: str | Mapping[str, Any], registry: Registry, *, path: str, runtime: Mapping[str, Any] = {}
) -> Any:
    """Build what a node describes, its nested nodes first.

    Classes and model builders are called; functions of a section whose functions are called later
    (losses, metrics, collate functions) are bound with their args. Of `runtime`, a target gets what
    its signature names.

    Raises:
        ConfigError: the name is unknown, or a library's class refuses its arguments.
    """
    name, args = split_node(node)
    try:
        target = registry.find(name)
    except NameLookupError as error:
        raise ConfigError([Mistake("", path, str(error))]) from error
    parameters = Parameters(target, registry, runtime)
    positional, keywords = [], {}
    for key, value in _items(args):
        argument = parameters.argument_name(key)
        section = ARGUMENT_SECTIONS.get(argument, registry)
        value = _build_nested(parameters.convert(argument, value), section, path, runtime)
        if argument:
            keywords[argument] = value
        else:
            positional.append(value)
    if parameters.is_called_later:
        return partial(target, **keywords) if keywords else target
    keywords = parameters.fill(keywords, runtime)
    try:
        return target(*positional, **keywords)
    except (TypeError, ValueError) as error:
        if not target.__module__.startswith(LIBRARIES):
            raise
        raise ConfigError([Mistake("", path, f"{name} refuses its args: {error}")]) from error


class Parameters:
    """What a class or function takes, as far as its signature tells."""

    def __init__(self, target: Any, registry: Registry, runtime: Collection[str]) -> None:
        self.target = target
        self.runtime = runtime
        self.is_called_later = bool(registry.call_args) and not inspect.isclass(target)
        found = list(inspect.signature(target).parameters.values())
        if self.is_called_later:
            found = found[registry.call_args :]
        self.takes_more = any(p.kind is p.VAR_POSITIONAL for p in found)
        followed = _follow_keywords(target) if any(p.kind is p.VAR_KEYWORD for p in found) else {}
        self.takes_any = followed is None
        named = {p.name: p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        self.by_name = (followed or {}) | named
        self.settable = [name for name in named if name not in runtime or name in FALLBACKS]

    def argument_name(self, key: str | int) -> str:
        """Return the name of an argument given by name or position; "" for one of *args."""
        if isinstance(key, str):
            return key
        return "" if self.takes_more or key >= len(self.settable) else self.settable[key]

    def check_names(self, name: str, args: Any, *, path: KeyPath) -> Iterator[Finding]:
        """Yield what is unknown, missing, too much, or given by the project itself."""
        if isinstance(args, list) and not self.takes_more and len(args) > len(self.settable):
            yield path, f"{name} takes {len(self.settable)} args at most, found {len(args)}"
        given = {self.argument_name(key) for key, _ in _items(args)} - {""}
        for key in sorted(given):
            if key in self.runtime and key in self.by_name and key not in FALLBACKS:
                yield (*path, key), f"{name} gets {key!r} from the project; remove it"
            elif key not in self.by_name and not self.takes_any:
                near = did_you_mean(key, self.by_name)
                yield (*path, key), f"{name} takes no {key!r}{near}"
        for key, parameter in self.by_name.items():
            if parameter.default is parameter.empty and key not in {*given, *self.runtime}:
                yield path, f"{name} needs {key!r}"

    def fill(self, given: dict[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
        """Add what the project passes; of `FALLBACKS` only what is left open."""
        for name, value in runtime.items():
            if name in FALLBACKS and (
                name not in self.by_name or {name, *FALLBACKS[name]} & {*given}
            ):
                continue
            if name in self.by_name or self.takes_any:
                given[name] = value
        return given

    def check_type(self, argument: str, value: Any, *, path: KeyPath) -> Iterator[Finding]:
        """Yield a finding when the signature states a type and the value is not of it."""
        annotation = self._annotation(argument)
        if annotation is inspect.Parameter.empty:
            return
        try:
            adapter = TypeAdapter(_in_json(annotation))
        except (PydanticUserError, TypeError, NameError, AttributeError):
            return  # a type that a config cannot state, or that cannot be resolved
        try:
            adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError:
            yield path, f"expected {_type_name(annotation)}, found {value!r}"

    def convert(self, argument: str, value: Any) -> Any:
        """Turn a plain value into the dtype, enum member or tensor that the signature asks for."""
        members = _union_members(self._annotation(argument))
        if isinstance(value, str) and torch.dtype in members:
            return DTYPES.get(value, value)
        if isinstance(value, str) and str not in members:
            for kind in members:
                if _is_enum(kind):
                    return kind[value] if value in kind.__members__ else kind(value)
        takes_list = any(get_origin(member) in (list, tuple, Sequence) for member in members)
        if isinstance(value, list) and torch.Tensor in members and not takes_list:
            return torch.tensor(value)
        return value

    def _annotation(self, argument: str) -> Any:
        if argument not in self.by_name:
            return inspect.Parameter.empty
        annotation = self.by_name[argument].annotation
        if not isinstance(annotation, str):
            return annotation
        function = self.target.__init__ if inspect.isclass(self.target) else self.target
        try:  # an annotation is source code of the project or a library, never of a config
            return eval(annotation, getattr(function, "__globals__", {}))
        except (NameError, TypeError, AttributeError, SyntaxError):
            return inspect.Parameter.empty


def _follow_keywords(target: Any) -> dict[str, inspect.Parameter] | None:
    """Return what a target's **kwargs stands for, or None when nothing tells."""
    if any(base.__module__ == "torchmetrics.metric" for base in getattr(target, "__mro__", ())):
        kind = inspect.Parameter.KEYWORD_ONLY
        return {name: inspect.Parameter(name, kind, default=None) for name in METRIC_ARGUMENTS}
    if inspect.isclass(target):
        sources: list[Any] = typing.get_overloads(target.__init__)
    else:
        made = inspect.signature(target).return_annotation
        sources = typing.get_overloads(target) + ([made] if inspect.isclass(made) else [])
    if not sources:
        return None
    return {
        name: parameter
        for source in sources
        for name, parameter in inspect.signature(source).parameters.items()
        if parameter.default is not parameter.empty  # the others the builder passes itself
    }


def _items(args: dict[str, Any] | list[Any]) -> Iterable[tuple[str | int, Any]]:
    return args.items() if isinstance(args, dict) else enumerate(args)


def _child_nodes(
    value: Any, path: KeyPath, registry: Registry
) -> Iterator[tuple[Mapping[str, Any], KeyPath, Registry]]:
    if is_node(value):
        yield value, path, registry
    elif isinstance(value, (dict, list)):
        for key, item in _items(value):
            yield from _child_nodes(item, (*path, key), registry)


def _build_nested(value: Any, registry: Registry, path: str, runtime: Mapping[str, Any]) -> Any:
    if is_node(value):
        return build(value, registry, path=path, runtime=runtime)
    if isinstance(value, dict):
        return {k: _build_nested(item, registry, path, runtime) for k, item in value.items()}
    if isinstance(value, list):
        return [_build_nested(item, registry, path, runtime) for item in value]
    return value


def _union_members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)


def _is_enum(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, enum.Enum)


def _in_json(annotation: Any) -> Any:
    """Return an annotation as a config states it: a dtype or enum by name, a tensor as a list."""
    if annotation is torch.Tensor:
        return list | float
    if annotation is torch.dtype:
        return Literal[tuple(DTYPES)]
    if _is_enum(annotation):
        values = [member.value for member in annotation if isinstance(member.value, str | int)]
        return Literal[tuple([*annotation.__members__, *values])]
    arguments = get_args(annotation)
    if get_origin(annotation) in UNIONS:
        return Union[tuple(_in_json(argument) for argument in arguments)]  # noqa: UP007
    if get_origin(annotation) is tuple:
        return tuple[tuple(a if a is ... else _in_json(a) for a in arguments)]
    if get_origin(annotation) in (Iterable, Sequence, list) and arguments:
        return list[_in_json(arguments[0])]
    return annotation


def _type_name(annotation: Any) -> str:
    return inspect.formatannotation(annotation).replace("typing.", "").replace("torch.", "")
