"""A config file to a checked config: every issue that shows before training, all at once."""

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from base.base_trainer import BaseTrainer
from base.config.data_rules import DATASETS, LOADER_RUNTIME
from base.config.merge import merge, parse_overrides, read_config
from base.config.rules import check_rules
from base.config.schema import (
    SECTIONS,
    Config,
    DataLoaderConfig,
    LoggerConfig,
    NodeConfig,
    ParamGroup,
    TrainerConfig,
)
from base.config.source import Source
from base.errors import ConfigError, ConfigIssue, KeyPath, did_you_mean, format_value
from base.registry import OPTIMIZERS, REGISTRIES, WRITERS, Registry
from base.registry.arguments import describe_errors
from base.registry.build import check

# What is built where a config names nothing.
STOCK = {"data_loader": DataLoaderConfig().type, "trainer": TrainerConfig().type}
# What the project itself passes to what is built there.
RUNTIME = {
    "data_loader": LOADER_RUNTIME,
    **dict.fromkeys(DATASETS, ("fitted",)),
    "optimizer": {"params"},
    "lr_scheduler": {"optimizer", "T_max", "total_steps", "max_lr"},
    "trainer": {*inspect.signature(BaseTrainer).parameters},
}
WRITER_RUNTIME = ("run", "config", "resume")


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config, lay the overrides over it, and check everything that can be checked.

    Raises: ConfigError with one line for every issue.
    """
    return check_config(merge(read_config(path), parse_overrides(overrides)))


def check_config(source: Source) -> Config:
    """Return the config of a source, or raise ConfigError likewise."""
    issues = [*check_schema(source.values)]
    issues += _check_nodes(source.values, {issue.path for issue in issues})
    if not any(issue.where for issue in issues):  # the project's own modules can be imported
        issues += check_rules(source.values, [issue.path for issue in issues])
    raise_issues(source, issues)
    return Config.from_source(source)


def raise_issues(source: Source, issues: Iterable[ConfigIssue]) -> None:
    """Raise a ConfigError where there are any, each with its place, in the order of reading."""
    located = [i if i.where else replace(i, where=source.where(i.path)) for i in issues]
    if located:
        raise ConfigError(sorted(located, key=_reading_order))


def _reading_order(issue: ConfigIssue) -> tuple[str, int, int]:
    """Return the file, line and column of an issue."""
    place = re.fullmatch(r"(.*):(\d+):(\d+)", issue.where, re.DOTALL)
    return (place[1], int(place[2]), int(place[3])) if place else (issue.where, 0, 0)


# --- keys, types and ranges ---------------------------------------------------------------------


def check_schema(
    values: Mapping[str, Any], schema: type[BaseModel] = Config
) -> Iterator[ConfigIssue]:
    """Yield every key, type and range of `values` that is not as the schema has it."""
    try:
        schema.model_validate(values)
    except ValidationError as error:
        details: dict[KeyPath, list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            details.setdefault(_path_of(detail, values), []).append(detail)
        for path, alternatives in details.items():
            yield ConfigIssue(path, _describe(alternatives, schema))


def _path_of(detail: ErrorDetails, values: Any) -> KeyPath:
    """Return the path of an error, without the members of unions that pydantic adds to it."""
    path = detail["loc"]
    if detail["type"] in ("missing", "extra_forbidden", "value_error"):
        return path
    for depth, key in enumerate(path):
        entries = dict(enumerate(values)) if isinstance(values, list) else values
        if not isinstance(entries, dict) or key not in entries:
            return path[:depth]
        values = entries[key]
    return path


def _describe(alternatives: list[ErrorDetails], schema: type[BaseModel]) -> str:
    """Return what is wrong with a value, in pydantic's words where they are clear."""
    detail = alternatives[0]
    if detail["type"] == "missing":
        return f"missing, the {schema.__name__.lower()} needs it"
    if detail["type"] == "extra_forbidden":
        return f"unknown key{_hint_at_key(detail['loc'], schema)}"
    return describe_errors(alternatives)


def _hint_at_key(path: KeyPath, root: type[BaseModel]) -> str:
    section = root
    for key in path[:-1]:
        if key in section.model_fields:
            section = _section_in(section.model_fields[key].annotation) or section
    near = did_you_mean(str(path[-1]), section.model_fields)
    if section is Config and path[0] in TrainerConfig.model_fields.keys() - {"type", "args"}:
        near = f" (did you mean 'trainer.{path[0]}'?)"
    return near or ("; arguments go into 'args'" if issubclass(section, NodeConfig) else "")


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that an annotation describes, be it optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


# --- names and arguments ------------------------------------------------------------------------


def _check_nodes(values: Mapping[str, Any], wrong: Collection[KeyPath]) -> Iterator[ConfigIssue]:
    """Yield what is wrong with names and args; a module not to be imported has a place already."""
    for key, path, node in _nodes_in(values, wrong):
        runtime = RUNTIME.get(key, ())
        yield from check(node, REGISTRIES[SECTIONS[key]], path=path, runtime=runtime)
        groups = node.get("param_groups") if isinstance(node, dict) else None
        for number, group in enumerate(groups if isinstance(groups, list) else ()):
            if isinstance(group, dict):
                options = {k: v for k, v in group.items() if k not in ParamGroup.model_fields}
                node_of_group = {"type": node["type"], "args": options}
                group_path = (*path, "param_groups", number)
                issues = _check_options(node_of_group, OPTIMIZERS, path=group_path, runtime=runtime)
                yield from (issue for issue in issues if issue.path != group_path)
    logger = values.get("logger")
    for name, options in logger.items() if isinstance(logger, dict) else ():
        if name not in LoggerConfig.model_fields and options is not None:
            yield from _check_writer(name, options, ("logger", name))


def _check_writer(name: str, options: Any, path: KeyPath) -> Iterator[ConfigIssue]:
    if near := did_you_mean(name, LoggerConfig.model_fields):
        yield ConfigIssue(path, f"unknown key{near}")
    elif not isinstance(options, bool | dict):
        found = format_value(options)
        yield ConfigIssue(path, f"expected true, false or a mapping of options, found {found}")
    else:
        node = {"type": name, "args": options if isinstance(options, dict) else {}}
        yield from _check_options(node, WRITERS, path=path, runtime=WRITER_RUNTIME)


def _check_options(
    node: Mapping[str, Any], registry: Registry, *, path: KeyPath, runtime: Collection[str]
) -> Iterator[ConfigIssue]:
    """Yield the issues of options that stand right at a path, in no args of a node."""
    for issue in check(node, registry, path=path, runtime=runtime):
        yield issue if issue.where else replace(issue, path=path + issue.path[len(path) + 1 :])


def _nodes_in(
    raw: Any, wrong: Collection[KeyPath], path: KeyPath = (), key: str = ""
) -> Iterator[tuple[str, KeyPath, Any]]:
    """Yield the nodes of a config, each with its key and path, but for what is found `wrong`."""
    if path in wrong:
        return
    if isinstance(raw, str):
        yield key, path, raw
    elif isinstance(raw, list):
        for number, item in enumerate(raw):
            yield from _nodes_in(item, wrong, (*path, number), key)
    elif isinstance(raw, dict):
        node = {"type": STOCK.get(key)} | raw
        takes_args = isinstance(node.get("args"), dict | list | None)
        if key and takes_args and isinstance(node["type"], str):
            yield key, path, node
        for name in SECTIONS:
            yield from _nodes_in(raw.get(name), wrong, (*path, name), name)
