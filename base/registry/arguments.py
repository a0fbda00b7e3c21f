"""What a class or function takes from a config, as far as its signature tells."""

import inspect
from collections import abc
from collections.abc import Collection, Iterable, Iterator, Mapping
from inspect import Parameter
from typing import Any

from torch import nn

from base.errors import did_you_mean
from base.registry.registry import Registry

Args = dict[str, Any] | list[Any]

# What the project passes only where the config leaves it and these other arguments out.
FALLBACKS = {
    "T_max": (), "total_steps": ("epochs",), "max_lr": (), "fused": ("foreach", "differentiable"),
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
