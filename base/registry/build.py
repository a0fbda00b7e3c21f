"""A node of the config and a registry make an object: args are checked first, then it is built.

A node is `{type: NAME, args: {...}}` or a bare name. `check` reports what is wrong and builds
nothing; `build` is the only place of the project that instantiates what a config names.
"""

import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from base.errors import ConfigError, ConfigIssue, KeyPath, UsageError
from base.registry import COLLATE_FNS, SAMPLERS, TRANSFORMS
from base.registry.arguments import Args, Parameters, items, read, section_of
from base.registry.registry import Registry

# Arguments whose nodes are looked up in a section of their own where no annotation says more.
ARGUMENT_SECTIONS = {
    "transform": TRANSFORMS, "transforms": TRANSFORMS, "target_transform": TRANSFORMS,
    "sampler": SAMPLERS, "collate_fn": COLLATE_FNS,
}  # fmt: skip
LIBRARIES = ("torch.", "torchvision.", "torchmetrics.")

Node = str | Mapping[str, Any]


def split_node(node: Node) -> tuple[str, Args]:
    """Return a node's type and args."""
    return (node, {}) if isinstance(node, str) else (node["type"], node.get("args") or {})


def nested_nodes(value: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Mapping[str, Any]]]:
    """Return the nodes in a value of args, each with its path; those inside a node are its own."""
    found: list[tuple[KeyPath, Mapping[str, Any]]] = []
    _map_nodes(value, path, lambda node, here: found.append((here, node)))
    return found


def _map_nodes(value: Any, path: KeyPath, function: Callable[[Any, KeyPath], Any]) -> Any:
    """Return a value of args with each node in it replaced by what `function` makes of it."""
    if isinstance(value, Mapping) and "type" in value:
        return function(value, path)
    if not isinstance(value, dict | list):
        return value
    mapped = {key: _map_nodes(item, (*path, key), function) for key, item in items(value)}
    return mapped if isinstance(value, dict) else [*mapped.values()]


def check(
    node: Node, registry: Registry, *, path: KeyPath, runtime: Collection[str] = ()
) -> list[ConfigIssue]:
    """Return an issue for everything wrong with a node and the nodes in its args.

    `runtime` names the arguments that the project itself passes, such as an optimizer's `params`.
    """
    visitor = _Visitor(builds=False)
    visitor.visit(node, registry, path, runtime)
    return visitor.issues


def build(node: Node, registry: Registry, *, path: KeyPath, runtime: Mapping[str, Any] = {}) -> Any:
    """Build what a node describes, its nested nodes first.

    Classes and model builders are called; functions of a section whose functions are called later
    (losses, metrics, collate functions) are bound with their args. Of `runtime`, a target gets what
    its signature names.

    Raises: ConfigError for what `check` would find, or where a class refuses its arguments.
    """
    visitor = _Visitor(builds=True)
    built = visitor.visit(node, registry, path, runtime)
    if visitor.issues:
        raise ConfigError(visitor.issues)
    return built


class _Visitor:
    """Checks a node and those in its args, and builds them as long as nothing is wrong."""

    def __init__(self, *, builds: bool) -> None:
        self.builds = builds
        self.issues: list[ConfigIssue] = []

    def visit(self, node: Node, registry: Registry, path: KeyPath, runtime: Collection[str]) -> Any:
        name, args = split_node(node)
        try:
            parameters = Parameters(name, registry, runtime)
        except ConfigError as error:
            here = path if node is name else (*path, "type")
            # a module that cannot be imported has a place of its own
            self.issues += [i if i.where else replace(i, path=here) for i in error.issues]
            return None
        path_to_args, values = (*path, "args") if args else path, {}
        for key, value in items(args):
            here = (*path_to_args, key)
            try:
                values[key] = self._read(parameters, parameters.argument_name(key), value, here)
            except ValueError as error:
                self.issues.append(ConfigIssue(here, str(error)))
        self.issues += [ConfigIssue(path_to_args, said) for said in parameters.check_number(args)]
        if self.issues or not self.builds:
            return None
        return _instantiate(parameters, values, path)

    def _read(self, parameters: Parameters, argument: str, value: Any, path: KeyPath) -> Any:
        parameters.check_name(argument)
        if nested_nodes(value):
            return _map_nodes(value, path, partial(self._visit_nested, parameters, argument))
        return read(value, parameters.annotation(argument))

    def _visit_nested(
        self, parameters: Parameters, argument: str, node: Mapping[str, Any], path: KeyPath
    ) -> Any:
        """Visit a node of an argument, in the first section that this may mean and has its name."""
        name, args = node["type"], node.get("args")
        is_whole = isinstance(name, str) and isinstance(args, dict | list | None)
        if not is_whole or node.keys() - {"type", "args"}:
            message = f"expected {{type: NAME, args: ...}}, found {reprlib.repr(node)}"
            self.issues.append(ConfigIssue(path, message))
            return None
        by_argument = ARGUMENT_SECTIONS.get(argument, parameters.registry)
        sections = [section_of(parameters.annotation(argument)) or by_argument, by_argument]
        section = next((one for one in sections if one.knows(name)), sections[0])
        runtime = parameters.runtime if section is parameters.registry else {}
        return self.visit(node, section, path, runtime)


def _instantiate(parameters: Parameters, values: dict[str | int, Any], path: KeyPath) -> Any:
    by_position = parameters.has_var_positional and 0 in values
    positional = values.values() if by_position else ()
    keywords = {} if by_position else parameters.named(values)
    if parameters.is_called_later:
        return partial(parameters.target, **keywords) if keywords else parameters.target
    try:
        return parameters.target(*positional, **parameters.fill(keywords, parameters.runtime))
    except UsageError as error:
        raise ConfigError([ConfigIssue(path, str(error))]) from error
    except (TypeError, ValueError, ImportError) as error:
        if not parameters.target.__module__.startswith(LIBRARIES):
            raise
        message = f"{parameters.name} refuses its args: {error}"
        raise ConfigError([ConfigIssue(path, message)]) from error
