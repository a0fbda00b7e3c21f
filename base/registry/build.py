"""A node of the config and a registry make an object: args are checked first, then it is built.

A node is `{type: NAME, args: {...}}` or a bare name. `check` reports what is wrong and builds
nothing; `build` is the only place of the project that instantiates what a config names.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args

from base.errors import ConfigError, ConfigIssue, KeyPath, UsageError, did_you_mean, format_value
from base.registry.arguments import Args, Parameters, items
from base.registry.registry import Registry
from base.registry.sections import COLLATE_FNS, REGISTRIES, SAMPLERS, TRANSFORMS

# Arguments whose nodes are looked up in a section of their own where no annotation says more.
ARGUMENT_SECTIONS = {
    "transform": TRANSFORMS, "transforms": TRANSFORMS, "target_transform": TRANSFORMS,
    "sampler": SAMPLERS, "collate_fn": COLLATE_FNS,
}  # fmt: skip
LIBRARIES = ("torch.", "torchvision.", "torchmetrics.")

Node = str | Mapping[str, Any]


def is_node(value: Any) -> bool:
    """Tell whether a value inside args describes an object to build."""
    return isinstance(value, Mapping) and "type" in value


def split_node(node: Node) -> tuple[str, Args]:
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
    node: Node, registry: Registry, *, path: KeyPath, runtime: Collection[str] = ()
) -> list[ConfigIssue]:
    """Return an issue for everything wrong with a node and the nodes in its args.

    `runtime` names the arguments that the project itself passes, such as an optimizer's `params`.
    """
    walk = _Walk()
    walk.visit(node, registry, path, runtime)
    return walk.issues


def build(node: Node, registry: Registry, *, path: KeyPath, runtime: Mapping[str, Any] = {}) -> Any:
    """Build what a node describes, its nested nodes first.

    Classes and model builders are called; functions of a section whose functions are called later
    (losses, metrics, collate functions) are bound with their args. Of `runtime`, a target gets what
    its signature names.

    Raises: ConfigError for what `check` would find, or where a class refuses its arguments.
    """
    walk = _Walk(builds=True)
    built = walk.visit(node, registry, path, runtime)
    if walk.issues:
        raise ConfigError(walk.issues)
    return built


@dataclass
class _Walk:
    """A way through a node and those in its args, on which they are built if nothing is wrong."""

    builds: bool = False
    issues: list[ConfigIssue] = field(default_factory=list)

    def visit(self, node: Node, registry: Registry, path: KeyPath, runtime: Collection[str]) -> Any:
        name, args = split_node(node)
        try:
            parameters = Parameters(name, registry, runtime)
        except ConfigError as error:
            here = path if node is name else (*path, "type")
            # a module that cannot be imported has a place of its own
            self.issues += [i if i.where else replace(i, path=here) for i in error.issues]
            return None
        path_to_args = (*path, "args") if args else path
        values = {}
        for key, value in items(args):
            here, argument = (*path_to_args, key), parameters.argument_name(key)
            try:
                if any(nested_nodes(value)):
                    parameters.check_name(argument)
                    values[key] = self.visit_nested(value, argument, parameters, here)
                else:
                    values[key] = parameters.read(argument, value)
            except ValueError as error:
                self.issues.append(ConfigIssue(here, str(error)))
        self.issues += parameters.check_number(args, path=path_to_args)
        return _instantiate(parameters, values, path) if self.builds and not self.issues else None

    def visit_nested(self, value: Any, argument: str, parameters: Parameters, path: KeyPath) -> Any:
        """Visit the nodes in a value of args."""
        if is_node(value):
            issues = [*_check_keys(value, path)]
            self.issues += issues
            section = None if issues else _section(value["type"], argument, parameters)
            runtime = parameters.runtime if section is parameters.registry else {}
            return self.visit(value, section, path, runtime) if section else None
        if not isinstance(value, dict | list):
            return value
        visited = {
            key: self.visit_nested(item, argument, parameters, (*path, key))
            for key, item in items(value)
        }
        return visited if isinstance(value, dict) else [*visited.values()]


def _check_keys(node: Mapping[str, Any], path: KeyPath) -> Iterator[ConfigIssue]:
    name, args = node["type"], node.get("args")
    for key in node.keys() - {"type", "args"}:
        near = did_you_mean(key, ["args"]) or "; arguments go into 'args'"
        yield ConfigIssue((*path, key), f"unknown key{near}")
    if not isinstance(name, str):
        yield ConfigIssue((*path, "type"), f"expected a name, found {format_value(name)}")
    if not isinstance(args, dict | list | None):
        message = f"expected a mapping or a list, found {format_value(args)}"
        yield ConfigIssue((*path, "args"), message)


def _section(name: str, argument: str, parameters: Parameters) -> Registry:
    """Return the section of a nested node: of those that its argument may mean, the first that
    has its name."""
    named = ARGUMENT_SECTIONS.get(argument)
    asked = _section_of(getattr(parameters.by_name.get(argument), "annotation", None))
    sections = [s for s in (named, asked, None if named else parameters.registry) if s]
    return next((section for section in sections if section.knows(name)), sections[0])


def _section_of(annotation: Any) -> Registry | None:
    """Return the section whose things an annotation asks for, if it does."""
    for registry in REGISTRIES.values() if isinstance(annotation, type) else ():
        if registry.base and issubclass(annotation, registry.base):
            return registry
    return next(filter(None, map(_section_of, get_args(annotation))), None)


def _instantiate(parameters: Parameters, values: Mapping[str | int, Any], path: KeyPath) -> Any:
    positional, keywords = [], {}
    for key, value in values.items():
        argument = parameters.argument_name(key)
        if argument and not (parameters.has_var_positional and isinstance(key, int)):
            keywords[argument] = value
        else:
            positional.append(value)
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
