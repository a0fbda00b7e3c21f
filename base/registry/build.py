"""A node of the config and a registry make an object: args are checked first, then it is built.

A node is `{type: NAME, args: {...}}` or a bare name. `check` reports what is wrong and builds
nothing; `build` is the only place of the project that instantiates what a config names.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from base.errors import ConfigError, ConfigIssue, KeyPath, UsageError, did_you_mean, format_value
from base.registry import COLLATE_FNS, SAMPLERS, TRANSFORMS, Registry
from base.registry.arguments import Args, Parameters, items

# Arguments whose nodes are looked up in a section of their own; all others in that of their parent.
ARGUMENT_SECTIONS = {
    "transform": TRANSFORMS,
    "transforms": TRANSFORMS,
    "target_transform": TRANSFORMS,
    "sampler": SAMPLERS,
    "collate_fn": COLLATE_FNS,
}
LIBRARIES = ("torch.", "torchvision.", "torchmetrics.")


def is_node(value: Any) -> bool:
    """Tell whether a value inside args describes an object to build."""
    return isinstance(value, Mapping) and "type" in value


def split_node(node: str | Mapping[str, Any]) -> tuple[str, Args]:
    """Return a node's type and args."""
    return (node, {}) if isinstance(node, str) else (node["type"], node.get("args") or {})


def nested_nodes(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Yield the nodes in a value of args, each with its path; those inside a node are its own."""
    if is_node(value):
        yield path, value
    elif isinstance(value, dict | list):
        for key, item in items(value):
            yield from nested_nodes(item, (*path, key))


def check(
    node: str | Mapping[str, Any],
    registry: Registry,
    *,
    path: KeyPath,
    runtime: Collection[str] = (),
) -> Iterator[ConfigIssue]:
    """Yield an issue for everything wrong with a node and the nodes in its args.

    `runtime` names the arguments that the project itself passes, such as an optimizer's `params`.

    Raises: ConfigError where a module of the project cannot be imported.
    """
    name, args = split_node(node)
    try:
        parameters = Parameters(registry.find(name), registry, runtime)
    except ConfigError as error:
        yield from _at(path if node is name else (*path, "type"), error.issues)
        return
    path_to_args = (*path, "args") if args else path
    refused = list(parameters.check_names(name, args, path=path_to_args))
    refused_paths = {issue.path for issue in refused}
    yield from refused
    for key, value in items(args):
        here, argument = (*path_to_args, key), parameters.argument_name(key)
        section = ARGUMENT_SECTIONS.get(argument, registry)
        nested = list(nested_nodes(value, here))
        for child_path, child in nested:
            yield from _check_nested(child, section, path=child_path, runtime=runtime)
        if not nested and here not in refused_paths:
            yield from parameters.check_value(argument, value, path=here)


def _check_nested(
    node: Mapping[str, Any], registry: Registry, *, path: KeyPath, runtime: Collection[str]
) -> Iterator[ConfigIssue]:
    name, args = node["type"], node.get("args")
    for key in [key for key in node if key not in ("type", "args")]:
        near = did_you_mean(key, ["args"]) or "; arguments go into 'args'"
        yield ConfigIssue((*path, key), f"unknown key{near}")
    if not isinstance(name, str):
        yield ConfigIssue((*path, "type"), f"expected a name, found {format_value(name)}")
    elif not isinstance(args, dict | list | None):
        message = f"expected a mapping or a list, found {format_value(args)}"
        yield ConfigIssue((*path, "args"), message)
    else:
        yield from check(node, registry, path=path, runtime=runtime)


def _at(path: KeyPath, issues: Iterable[ConfigIssue]) -> Iterator[ConfigIssue]:
    """Yield issues with the path of a node, those of modules, which have a place, as they are."""
    yield from (issue if issue.where else replace(issue, path=path) for issue in issues)


def build(
    node: str | Mapping[str, Any],
    registry: Registry,
    *,
    path: KeyPath,
    runtime: Mapping[str, Any] = {},
) -> Any:
    """Build what a node describes, its nested nodes first.

    Classes and model builders are called; functions of a section whose functions are called later
    (losses, metrics, collate functions) are bound with their args. Of `runtime`, a target gets what
    its signature names.

    Raises: ConfigError where the name is unknown, or its class refuses its arguments.
    """
    name, args = split_node(node)
    try:
        parameters = Parameters(registry.find(name), registry, runtime)
    except ConfigError as error:
        raise ConfigError(_at(path, error.issues)) from error
    positional, keywords = [], {}
    for key, value in items(args):
        argument = parameters.argument_name(key)
        section = ARGUMENT_SECTIONS.get(argument, registry)
        if any(nested_nodes(value)):
            value = _build_nested(value, section, (*path, "args", key), runtime)
        else:
            value = parameters.read(argument, value)
        if argument and not (parameters.takes_more and isinstance(args, list)):
            keywords[argument] = value
        else:
            positional.append(value)
    if parameters.is_called_later:
        return partial(parameters.target, **keywords) if keywords else parameters.target
    try:
        return parameters.target(*positional, **parameters.fill(keywords, runtime))
    except UsageError as error:
        raise ConfigError([ConfigIssue(path, str(error))]) from error
    except (TypeError, ValueError, ImportError) as error:
        if not parameters.target.__module__.startswith(LIBRARIES):
            raise
        raise ConfigError([ConfigIssue(path, f"{name} refuses its args: {error}")]) from error


def _build_nested(value: Any, registry: Registry, path: KeyPath, runtime: Mapping[str, Any]) -> Any:
    if is_node(value):
        return build(value, registry, path=path, runtime=runtime)
    if not isinstance(value, dict | list):
        return value
    built = {k: _build_nested(v, registry, (*path, k), runtime) for k, v in items(value)}
    return built if isinstance(value, dict) else list(built.values())
