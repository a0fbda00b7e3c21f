"""What a class or function takes from a config, as far as its signature tells."""

import inspect
import typing
from collections import abc
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from base.errors import ConfigIssue, KeyPath, did_you_mean
from base.registry import Registry
from base.registry.annotations import read

Args = dict[str, Any] | list[Any]

# What torchmetrics' Metric takes from its **kwargs without naming it in a signature.
METRIC_ARGUMENTS = (
    "compute_on_cpu", "dist_sync_on_step", "process_group", "dist_sync_fn",
    "distributed_available_fn", "sync_on_compute", "compute_with_cache",
)  # fmt: skip
# What the project passes only where the config leaves it and these other arguments out.
FALLBACKS = {
    "T_max": (), "total_steps": ("epochs",), "max_lr": (), "fused": ("foreach", "differentiable"),
}  # fmt: skip


class Parameters:
    """The parameters of a target, without those that a function gets when it is called later.

    `runtime` names the arguments that the project itself passes, such as an optimizer's `params`.
    """

    def __init__(self, target: Any, registry: Registry, runtime: Collection[str] = ()) -> None:
        self.target, self.runtime = target, runtime
        self.is_called_later = bool(registry.call_args) and not inspect.isclass(target)
        found = _parameters(target)
        self.at_call = [p.name for p in found[: registry.call_args]] if self.is_called_later else []
        found = found[len(self.at_call) :]
        self.takes_more = any(p.kind is p.VAR_POSITIONAL for p in found)
        followed = _followed(target) if any(p.kind is p.VAR_KEYWORD for p in found) else {}
        self.takes_any = followed is None
        named = {p.name: p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        self.by_name = (followed or {}) | named
        self.needed = [p.name for p in named.values() if p.default is p.empty]
        by_position = [p.name for p in named.values() if p.kind is not p.KEYWORD_ONLY]
        self.positional = [n for n in by_position if n not in runtime or n in FALLBACKS]

    def argument_name(self, key: str | int) -> str:
        """Return the name of an argument given by name or position; "" for one of *args."""
        if isinstance(key, str):
            return key
        return self.positional[key] if key < len(self.positional) else ""

    def named(self, args: Args) -> dict[str, Any]:
        """Return the args by name, those of *args left out."""
        return {name: value for key, value in items(args) if (name := self.argument_name(key))}

    def check_names(self, name: str, args: Args, *, path: KeyPath) -> Iterator[ConfigIssue]:
        """Yield what is unknown, missing, too much, or given by the project itself."""
        most = len(self.positional)
        if isinstance(args, list) and len(args) > most and not self.takes_more:
            message = f"{name} takes {most} args by position at most, found {len(args)}"
            yield ConfigIssue(path, message)
        given = self.named(args)
        unknown = [i for a in given for i in self.check_name(name, a, path=(*path, a))]
        yield from unknown
        for argument in self.needed:
            is_meant = any(f"did you mean {argument!r}" in issue.message for issue in unknown)
            if argument not in {*given, *self.runtime} and not is_meant:
                yield ConfigIssue(path, f"{name} needs {argument!r}")

    def check_name(self, name: str, argument: str, *, path: KeyPath) -> Iterator[ConfigIssue]:
        """Yield an issue when the config cannot give this argument."""
        if argument in self.runtime and argument in self.by_name and argument not in FALLBACKS:
            yield ConfigIssue(path, f"{name} gets {argument!r} from the project; remove it")
        elif argument in self.at_call:
            yield ConfigIssue(path, f"{name} gets {argument!r} when it is called; remove it")
        elif argument not in self.by_name and not self.takes_any:
            near = did_you_mean(argument, self.by_name)
            yield ConfigIssue(path, f"{name} takes no {argument!r}{near}")

    def check_value(self, argument: str, value: Any, *, path: KeyPath) -> Iterator[ConfigIssue]:
        """Yield an issue when the signature states a type and the value is not of it."""
        try:
            self.read(argument, value)
        except ValueError as error:
            yield ConfigIssue(path, str(error))

    def read(self, argument: str, value: Any) -> Any:
        """Return a value as the argument's annotation asks for it; ValueError where it cannot."""
        annotation = getattr(self.by_name.get(argument), "annotation", inspect.Parameter.empty)
        return value if annotation is inspect.Parameter.empty else read(value, annotation)

    def fill(self, given: dict[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is given with what the project passes; of `FALLBACKS` what is left open."""
        for name, value in runtime.items():
            is_open = not {name, *FALLBACKS.get(name, ())} & {*given}
            if is_open if name in self.by_name else self.takes_any and name not in FALLBACKS:
                given[name] = value
        return given


def _parameters(target: Any) -> list[inspect.Parameter]:
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
        return inspect.Parameter.empty


def _followed(target: Any) -> dict[str, inspect.Parameter] | None:
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
    # without a default are only those that the builder passes itself
    parameters = [p for source in sources for p in _parameters(source)]
    return {p.name: p for p in parameters if p.default is not p.empty}


def items(args: Args) -> Iterable[tuple[str | int, Any]]:
    """Return args with their names or positions."""
    return args.items() if isinstance(args, dict) else enumerate(args)
