"""A config file to a checked config: every issue that shows before training, all at once."""

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from base.base_trainer import BaseTrainer
from base.config.merge import merge, parse_overrides, read_config
from base.config.rules import DATASETS, LOADER_RUNTIME, check_rules
from base.config.schema import (
    Config,
    DataLoaderConfig,
    LoggerConfig,
    NodeConfig,
    ParamGroup,
    TrainerConfig,
)
from base.config.source import Source
from base.errors import ConfigError, ConfigIssue, KeyPath, did_you_mean, format_value
from base.registry import OPTIMIZERS, REGISTRIES, WRITERS
from base.registry.annotations import describe_type
from base.registry.arguments import Parameters
from base.registry.build import check, split_node

# The section of names for what is built from a key, wherever the schema has that key.
SECTIONS = {
    "dataset": "datasets", "valid_dataset": "datasets", "test_dataset": "datasets",
    "transform": "transforms", "valid_transform": "transforms", "data_loader": "data_loaders",
    "model": "models", "init": "inits", "loss": "losses", "metrics": "metrics",
    "optimizer": "optimizers", "lr_scheduler": "lr_schedulers", "trainer": "trainers",
    "callbacks": "callbacks",
}  # fmt: skip
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
    raw = source.values
    issues = [*check_schema(raw)]
    issues += _check_nodes(raw, {issue.path for issue in issues})
    issues += _check_writers(raw.get("logger"))
    if not any(issue.where for issue in issues):  # the project's own modules can be imported
        issues += check_rules(raw, [issue.path for issue in issues])
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


def check_schema(raw: Mapping[str, Any], schema: type[BaseModel] = Config) -> Iterator[ConfigIssue]:
    """Yield every key, type and range of `raw` that is not as the schema has it."""
    try:
        schema.model_validate(raw)
    except ValidationError as error:
        yield from (_issue(detail, schema) for detail in error.errors(include_url=False))


def _issue(detail: ErrorDetails, root: type[BaseModel]) -> ConfigIssue:
    path, kind = detail["loc"], detail["type"]
    known, schema = _schema_at(path, root)
    section = _section_in(schema)
    if kind == "value_error":
        return ConfigIssue(path, detail["msg"].removeprefix("Value error, "))
    if kind == "missing":
        return ConfigIssue(path, f"missing, the {root.__name__.lower()} needs it")
    if kind == "extra_forbidden":
        near = did_you_mean(str(path[-1]), section.model_fields)
        if section is Config and path[0] in TrainerConfig.model_fields.keys() - {"type", "args"}:
            near = f" (did you mean 'trainer.{path[0]}'?)"
        hint = "; arguments go into 'args'" if issubclass(section, NodeConfig) else ""
        return ConfigIssue(path, f"unknown key{near or hint}")
    expected = "a list" if section else describe_type(schema, detail)
    if section and kind in ("model_type", "dict_type"):
        expected = "a name or a mapping" if issubclass(section, NodeConfig) else "a mapping"
    return ConfigIssue(known, f"expected {expected}, found {format_value(detail['input'])}")


def _schema_at(path: KeyPath, schema: Any = Config) -> tuple[KeyPath, Any]:
    """Return a path as far as the schema knows it, and what the schema says there."""
    for depth, key in enumerate(path):
        fields = getattr(_section_in(schema), "model_fields", {})
        if isinstance(key, int):
            schema = get_args(schema)[0]
        elif get_origin(schema) is dict:
            schema = get_args(schema)[1]
        elif key in fields:
            schema = fields[key].annotation
        else:
            return path[:depth], schema
    return path, schema


def _section_in(schema: Any) -> type[BaseModel] | None:
    """Return the section that a part of the schema describes, be it optional or in a list."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema
    return next(filter(None, map(_section_in, get_args(schema))), None)


# --- names and arguments ------------------------------------------------------------------------


def _check_nodes(raw: Mapping[str, Any], wrong: Collection[KeyPath]) -> Iterator[ConfigIssue]:
    """Yield what is wrong with names and args; a module not to be imported has a place already."""
    for key, path, node in _nodes_in(raw, wrong):
        runtime = RUNTIME.get(key, ())
        yield from check(node, REGISTRIES[SECTIONS[key]], path=path, runtime=runtime)
        if key == "optimizer":
            yield from _check_param_groups(node)


def _check_writers(logger: Any) -> Iterator[ConfigIssue]:
    """Yield what is wrong with the names of writers and their options."""
    for name, options in logger.items() if isinstance(logger, dict) else ():
        path = ("logger", name)
        if name in LoggerConfig.model_fields or options is None:
            continue
        if not WRITERS.knows(name):
            near = did_you_mean(str(name), [*LoggerConfig.model_fields, *WRITERS.names()])
            yield ConfigIssue(path, f"unknown key{near}")
        elif not isinstance(options, bool | dict):
            expected = "true, false or a mapping of options"
            yield ConfigIssue(path, f"expected {expected}, found {format_value(options)}")
        else:
            node = {"type": name, "args": options if isinstance(options, dict) else {}}
            for issue in check(node, WRITERS, path=path, runtime=WRITER_RUNTIME):
                # options stand right below the name, not in args of a node
                yield replace(issue, path=(*path, *issue.path[3:]))


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


def _check_param_groups(optimizer: Mapping[str, Any] | str) -> Iterator[ConfigIssue]:
    """Yield the options of parameter groups that the optimizer does not take."""
    groups = isinstance(optimizer, dict) and optimizer.get("param_groups")
    name, _ = split_node(optimizer)
    try:
        parameters = Parameters(name, OPTIMIZERS)
    except ConfigError:
        return  # it was reported
    for number, group in enumerate(groups if isinstance(groups, list) else ()):
        for key, value in group.items() if isinstance(group, dict) else ():
            if key not in ParamGroup.model_fields:
                try:
                    parameters.read(key, value)
                except ValueError as error:
                    yield ConfigIssue(("optimizer", "param_groups", number, key), str(error))
