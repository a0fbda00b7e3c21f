"""A node of the config and a registry make an object: args are checked first, then it is built.

A node is `{type: NAME, args: {...}}` or a bare name. `check` reports what is wrong and builds
nothing; `build` is the only place of the project that instantiates what a config names.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, get_args

from base.errors import ConfigError, ConfigIssue, KeyPath, UsageError, did_you_mean, format_value
from base.registry import COLLATE_FNS, REGISTRIES, SAMPLERS, TRANSFORMS
from base.registry.arguments import Args, Parameters, items
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
    issues: list[ConfigIssue] = []
    _visit(node, registry, path, runtime, issues, builds=False)
    return issues


def build(node: Node, registry: Registry, *, path: KeyPath, runtime: Mapping[str, Any] = {}) -> Any:
    """Build what a node describes, its nested nodes first.

    Classes and model builders are called; functions of a section whose functions are called later
    (losses, metrics, collate functions) are bound with their args. Of `runtime`, a target gets what
    its signature names.

    Raises: ConfigError for what `check` would find, or where a class refuses its arguments.
    """
    issues: list[ConfigIssue] = []
    built = _visit(node, registry, path, runtime, issues, builds=True)
    if issues:
        raise ConfigError(issues)
    return built


def _visit(
    node: Node,
    registry: Registry,
    path: KeyPath,
    runtime: Collection[str],
    issues: list[ConfigIssue],
    *,
    builds: bool,
) -> Any:
    """Add what is wrong with a node to `issues`; while there are none, it can be built."""
    name, args = split_node(node)
    try:
        parameters = Parameters(name, registry, runtime)
    except ConfigError as error:
        here = path if node is name else (*path, "type")
        # a module that cannot be imported has a place of its own
        issues += [issue if issue.where else replace(issue, path=here) for issue in error.issues]
        return None

    def visit_nested(child: Mapping[str, Any], here: KeyPath) -> Any:
        if wrong := _check_keys(child, here):
            issues.extend(wrong)
            return None
        section = _section(child["type"], argument, parameters)
        passed = runtime if section is registry else {}
        return _visit(child, section, here, passed, issues, builds=builds)

    path_to_args, values = (*path, "args") if args else path, {}
    for key, value in items(args):
        here, argument = (*path_to_args, key), parameters.argument_name(key)
        try:
            if nested_nodes(value):
                parameters.check_name(argument)
                values[key] = _map_nodes(value, here, visit_nested)
            else:
                values[key] = parameters.read(argument, value)
        except ValueError as error:
            issues.append(ConfigIssue(here, str(error)))
    issues += parameters.check_number(args, path=path_to_args)
    return _instantiate(parameters, values, path) if builds and not issues else None


def _check_keys(node: Mapping[str, Any], path: KeyPath) -> list[ConfigIssue]:
    name, args = node["type"], node.get("args")
    wrong = {}
    for key in node.keys() - {"type", "args"}:
        near = did_you_mean(str(key), ["args"]) or "; arguments go into 'args'"
        wrong[key] = f"unknown key{near}"
    if not isinstance(name, str):
        wrong["type"] = f"expected a name, found {format_value(name)}"
    if not isinstance(args, dict | list | None):
        wrong["args"] = f"expected a mapping or a list, found {format_value(args)}"
    return [ConfigIssue((*path, key), message) for key, message in wrong.items()]


def _section(name: str, argument: str, parameters: Parameters) -> Registry:
    """Return the section of a nested node: the first that its argument may mean and has `name`."""
    by_argument = ARGUMENT_SECTIONS.get(argument, parameters.registry)
    by_type = _section_of(getattr(parameters.by_name.get(argument), "annotation", None))
    sections = [by_argument] if by_type is None else [by_type, by_argument]
    return next((section for section in sections if section.knows(name)), sections[0])


def _section_of(annotation: Any) -> Registry | None:
    """Return the section whose things an annotation asks for, if there is one."""
    for registry in REGISTRIES.values() if isinstance(annotation, type) else ():
        if registry.base and issubclass(annotation, registry.base):
            return registry
    return next(filter(None, map(_section_of, get_args(annotation))), None)


def _instantiate(parameters: Parameters, values: Mapping[str | int, Any], path: KeyPath) -> Any:
    keywords = {name: value for name, value in values.items() if isinstance(name, str)}
    positional = [value for key, value in values.items() if isinstance(key, int)]
    if not parameters.has_var_positional:
        keywords, positional = parameters.named(values), []
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
