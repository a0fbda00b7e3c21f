"""A config file to a checked config: every issue that shows before training, all at once."""

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from base.base_trainer import BaseTrainer
from base.config.merge import merge, parse_overrides, read_config
from base.config.rules import DATASET_KEYS, LOADER_RUNTIME, check_rules
from base.config.schema import SECTIONS, STOCK, Config, LoggerConfig, NodeConfig, ParamGroup
from base.config.source import Source
from base.errors import ConfigError, ConfigIssue, KeyPath, did_you_mean
from base.registry import OPTIMIZERS, REGISTRIES, WRITERS, Registry
from base.registry.arguments import describe_errors
from base.registry.build import Node, check

# What the project itself passes to what is built from a key.
RUNTIME = {
    "data_loader": LOADER_RUNTIME,
    **dict.fromkeys(DATASET_KEYS, ("fitted",)),
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
    values, issues = source.values, [*check_schema(source.values)]
    wrong = {issue.path for issue in issues}
    given = {key: value for key, value in values.items() if value is not None}
    nodes = [*_nodes_in(STOCK | given, wrong)]
    writers = [*_writers_in(values.get("logger"), wrong)]
    issues += [issue for part in nodes for issue in part.check()]
    issues += [issue for part in writers for issue in part.check_options()]
    issues += _check_param_groups(values.get("optimizer"))
    if not any(issue.where for issue in issues):  # the project's own modules can be imported
        on = [part for part in writers if values["logger"][part.path[1]] is not False]
        issues += check_rules(values, [i.path for i in issues], [part[:3] for part in nodes + on])
    raise_issues(source, issues)
    return Config.from_source(source)


def raise_issues(source: Source, issues: Iterable[ConfigIssue]) -> None:
    """Raise a ConfigError where there are any, each with its place, in the order of reading."""
    located = [i if i.where else replace(i, where=source.where(i.path)) for i in issues]
    if located:
        raise ConfigError(sorted(located, key=_reading_order))


def _reading_order(issue: ConfigIssue) -> str:
    """Return the place of an issue, with numbers that sort as text."""
    return re.sub(r"\d+", lambda number: number[0].zfill(9), issue.where)


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
            if alternatives[0]["type"] == "missing":
                message = f"missing, the {schema.__name__.lower()} needs it"
            elif alternatives[0]["type"] == "extra_forbidden":
                message = f"unknown key{_hint_at_key(path, schema)}"
            else:
                message = describe_errors(alternatives)
            yield ConfigIssue(path, message)


def _path_of(detail: ErrorDetails, values: Any) -> KeyPath:
    """Return the path of an error, without the members of unions that pydantic adds to it."""
    path = detail["loc"]
    if detail["type"] in ("missing", "extra_forbidden"):
        return path
    for depth, key in enumerate(path):
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            return path[:depth]
    return path


def _hint_at_key(path: KeyPath, root: type[BaseModel]) -> str:
    section = root
    for key in path[:-1]:
        if key in section.model_fields:
            section = _section_in(section.model_fields[key].annotation) or section
    near = did_you_mean(str(path[-1]), section.model_fields)
    of_trainer = Config.model_fields["trainer"].annotation.model_fields
    if section is Config and path[0] in of_trainer.keys() - {"type", "args"}:
        near = f" (did you mean 'trainer.{path[0]}'?)"
    return near or ("; arguments go into 'args'" if issubclass(section, NodeConfig) else "")


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that an annotation describes, be it optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


# --- names and arguments ------------------------------------------------------------------------


class _Part(NamedTuple):
    """Something that a config names; `runtime` are the arguments that the project passes to it."""

    path: KeyPath
    node: Node
    registry: Registry
    runtime: Collection[str] = ()

    def check(self) -> list[ConfigIssue]:
        return check(self.node, self.registry, path=self.path, runtime=self.runtime)

    def check_options(self) -> Iterator[ConfigIssue]:
        """Yield the issues of args that stand right at the path, as options of a mapping."""
        for issue in self.check():
            yield replace(issue, path=self.path + issue.path[len(self.path) + 1 :])


def _nodes_in(
    raw: Any, wrong: Collection[KeyPath], path: KeyPath = (), key: str = ""
) -> Iterator[_Part]:
    """Yield the nodes of a config, but for what is found `wrong`; raw values are those of `key`."""
    if path in wrong:
        return
    is_node = isinstance(raw, str)
    if isinstance(raw, list):
        for number, item in enumerate(raw):
            yield from _nodes_in(item, wrong, (*path, number), key)
    elif isinstance(raw, dict):
        raw = {"type": STOCK.get(key)} | raw
        is_node = isinstance(raw["type"], str) and isinstance(raw.get("args"), dict | list | None)
        for name in SECTIONS:
            yield from _nodes_in(raw.get(name), wrong, (*path, name), name)
    if key and is_node:
        yield _Part(path, raw, REGISTRIES[SECTIONS[key]], RUNTIME.get(key, ()))


def _writers_in(logger: Any, wrong: Collection[KeyPath]) -> Iterator[_Part]:
    for name, options in logger.items() if isinstance(logger, dict) else ():
        is_writer = name not in LoggerConfig.model_fields and options is not None
        if is_writer and ("logger", name) not in wrong:
            node = {"type": name, "args": options if isinstance(options, dict) else {}}
            yield _Part(("logger", name), node, WRITERS, WRITER_RUNTIME)


def _check_param_groups(optimizer: Any) -> Iterator[ConfigIssue]:
    section = optimizer if isinstance(optimizer, dict) else {}
    name, groups = section.get("type"), section.get("param_groups")
    is_clear = isinstance(name, str) and isinstance(groups, list)
    for number, group in enumerate(groups if is_clear else ()):
        if isinstance(group, dict):
            options = {k: v for k, v in group.items() if k not in ParamGroup.model_fields}
            path, node = ("optimizer", "param_groups", number), {"type": name, "args": options}
            issues = _Part(path, node, OPTIMIZERS, RUNTIME["optimizer"]).check_options()
            yield from (issue for issue in issues if issue.path != path)
