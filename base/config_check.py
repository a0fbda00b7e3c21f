"""A config file to a checked config: every mistake that shows before training, all at once."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from base.base_data_loader import BaseDataLoader
from base.build import Finding, KeyPath, Parameters, check
from base.config import Config, Section
from base.config_file import Node, merge, parse_overrides, plain, read_config, where_is
from base.device import select_device
from base.errors import ConfigError, Mistake, UsageError, did_you_mean
from base.registry import (
    CALLBACKS,
    DATA_LOADERS,
    DATASETS,
    INITS,
    LOSSES,
    LR_SCHEDULERS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    TRAINERS,
    TRANSFORMS,
    NameLookupError,
    Registry,
)  # fmt: skip

# Every place of a config that names something to build, with what the project passes to it.
NODES: dict[str, tuple[Registry, frozenset[str]]] = {
    "dataset": (DATASETS, frozenset()),
    "dataset.transform.*": (TRANSFORMS, frozenset()),
    "dataset.valid_transform.*": (TRANSFORMS, frozenset()),
    "valid_dataset": (DATASETS, frozenset()),
    "valid_dataset.transform.*": (TRANSFORMS, frozenset()),
    "test_dataset": (DATASETS, frozenset()),
    "test_dataset.transform.*": (TRANSFORMS, frozenset()),
    "data_loader": (DATA_LOADERS, frozenset({"dataset", "indices"})),
    "model": (MODELS, frozenset()),
    "model.init": (INITS, frozenset()),
    "loss": (LOSSES, frozenset()),
    "metrics.*": (METRICS, frozenset()),
    "optimizer": (OPTIMIZERS, frozenset({"params"})),
    "lr_scheduler": (LR_SCHEDULERS, frozenset({"optimizer", "T_max", "total_steps"})),
    "trainer": (TRAINERS, frozenset({"model"})),
    "callbacks.*": (CALLBACKS, frozenset()),
}
RESERVED_COLUMNS = ("epoch", "step", "seconds", "samples_per_second", "lr", "loss")
PLATEAU = "ReduceLROnPlateau"


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config, lay the overrides over it, and check everything that can be checked.

    Raises:
        ConfigError: with one line for every mistake.
    """
    return check_tree(merge(read_config(path), parse_overrides(overrides)))


def check_tree(tree: Node) -> Config:
    """Return the config of a tree.

    Raises:
        ConfigError: with one line for every mistake.
    """
    tree = _without_nulls(_rename_ancestors_keys(tree))
    raw = plain(tree)
    findings = [*_schema_findings(raw), *_node_findings(raw), *_semantic_findings(raw)]
    if findings:
        mistakes = [
            Mistake(where_is(tree, path), ".".join(map(str, path)), message)
            for path, message in findings
        ]
        raise ConfigError(sorted(mistakes, key=_reading_order))
    return Config.from_tree(tree)


def _reading_order(mistake: Mistake) -> tuple[str, int]:
    file, _, line = mistake.where.rsplit(":", 1)[0].rpartition(":")
    return file, int(line) if line.isdigit() else 0


# --- the tree before it is checked --------------------------------------------------------------


def _rename_ancestors_keys(tree: Node) -> Node:
    """Map the keys of victoresque/pytorch-template to ours; theirs are dropped where both stand."""
    top = dict(tree.value)
    trainer = dict(top["trainer"].value) if _is_mapping(top.get("trainer")) else {}
    logger = dict(top["logger"].value) if _is_mapping(top.get("logger")) else {}
    if "arch" in top:
        top.setdefault("model", top.pop("arch"))
    if "n_gpu" in top:
        n_gpu = top.pop("n_gpu")
        top.setdefault("device", Node("auto" if n_gpu.value else "cpu", n_gpu.where))
    for key in ("verbosity", "tensorboard"):
        if key in trainer:
            logger.setdefault(key, trainer.pop(key))
    if logger and trainer != plain(top.get("trainer", Node({}, ""))):
        top["logger"] = Node(logger, getattr(top.get("logger"), "where", tree.where))
        if _is_mapping(top.get("trainer")):
            top["trainer"] = Node(trainer, top["trainer"].where)
    return Node(top, tree.where)


def _is_mapping(node: Node | None) -> bool:
    return node is not None and isinstance(node.value, dict)


def _without_nulls(node: Node) -> Node:
    """Drop keys set to null, which take their default; inside args a null is a value."""
    if isinstance(node.value, list):
        return Node([_without_nulls(item) for item in node.value], node.where)
    if not isinstance(node.value, dict):
        return node
    kept = {
        key: child if key in ("args", "param_groups") else _without_nulls(child)
        for key, child in node.value.items()
        if child.value is not None
    }
    return Node(kept, node.where)


# --- keys, types and ranges ---------------------------------------------------------------------


def _schema_findings(raw: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        Config.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            yield detail["loc"], _schema_message(detail)


def _schema_message(detail: ErrorDetails) -> str:
    key = str(detail["loc"][-1])
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key!r}{did_you_mean(key, _keys_at(detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"missing, the config needs {key!r}"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    return f"{detail['msg'].replace('Input should be', 'expected')}, found {detail['input']!r}"


def _keys_at(path: KeyPath) -> list[str]:
    section: type[BaseModel] = Config
    for key in path:
        if isinstance(key, str):
            section = _section_in(section.model_fields[key].annotation)
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _section_in(a))), Section)


# --- names and arguments ------------------------------------------------------------------------


def _node_findings(raw: Mapping[str, Any]) -> Iterator[Finding]:
    for place, (registry, runtime) in NODES.items():
        for path, node in _nodes_at(raw, tuple(place.split("."))):
            yield from check(node, registry, path=path, runtime=runtime)


def _nodes_at(raw: Any, pattern: KeyPath, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the well-formed nodes of a place; what is malformed the schema has reported."""
    if not pattern:
        default = {"type": "Trainer"} if path == ("trainer",) else {}
        node = default | raw if isinstance(raw, dict) else raw
        if isinstance(node, str) or (isinstance(node, dict) and _is_well_formed(node)):
            yield path, node
    elif pattern[0] == "*":
        items = raw if isinstance(raw, list) else [raw]
        for number, item in enumerate(items):
            here = (*path, number) if isinstance(raw, list) else path
            yield from _nodes_at(item, pattern[1:], here)
    elif isinstance(raw, dict) and pattern[0] in raw:
        yield from _nodes_at(raw[pattern[0]], pattern[1:], (*path, pattern[0]))


def _is_well_formed(node: Mapping[str, Any]) -> bool:
    return isinstance(node.get("type"), str) and isinstance(node.get("args", {}), dict | list)


# --- what only makes sense together -------------------------------------------------------------


def _semantic_findings(raw: Mapping[str, Any]) -> Iterator[Finding]:
    config = _valid_part(raw)
    yield from _device_findings(config)
    yield from _data_findings(config, raw)
    yield from _column_findings(config, raw)
    yield from _scheduler_findings(config)
    if config.trainer.early_stop and config.trainer.monitor == "off":
        yield ("trainer", "early_stop"), "needs a trainer.monitor to judge improvement by"
    if config.optimizer and config.optimizer.type == "LBFGS" and config.trainer.accumulate > 1:
        yield ("trainer", "accumulate"), "LBFGS evaluates a whole step itself; expected 1"


def _valid_part(raw: Mapping[str, Any]) -> Config:
    """Return a config of the sections that are right by themselves, others at default or None."""
    try:
        bad = set()
        Config.model_validate(raw)
    except ValidationError as error:
        bad = {detail["loc"][0] for detail in error.errors()}
    sections = dict.fromkeys(("name", "model", "loss", "optimizer"))
    for key in raw.keys() - bad:
        partial = Config.__pydantic_validator__.validate_assignment(
            Config.model_construct(**sections), key, raw[key]
        )
        sections[key] = getattr(partial, key)
    return Config.model_construct(**sections)


def _device_findings(config: Config) -> Iterator[Finding]:
    try:
        select_device(config.device)
    except UsageError as error:
        yield ("device",), str(error)


def _data_findings(config: Config, raw: Mapping[str, Any]) -> Iterator[Finding]:
    loader = _loader_parameters(config)
    if loader is not None:
        needs_dataset = "dataset" in loader.by_name
        if needs_dataset and "dataset" not in raw:
            yield (), f"missing, {config.data_loader.type} needs a 'dataset'"
        if not needs_dataset and "dataset" in raw:
            yield ("dataset",), f"{config.data_loader.type} makes its own; remove one of them"
    if config.data_loader.type == "BaseDataLoader" or loader is not None:
        yield from _split_findings(config)


def _split_findings(config: Config) -> Iterator[Finding]:
    args = config.data_loader.args
    held_back = args.get("validation_split", 0) if isinstance(args, dict) else 0
    if isinstance(held_back, bool) or not isinstance(held_back, int | float):
        return  # its type was reported
    if not (0 <= held_back < 1 or (held_back >= 1 and held_back == int(held_back))):
        path = ("data_loader", "args", "validation_split")
        yield path, f"expected a share of at least 0 and below 1, or a count, found {held_back}"


def _loader_parameters(config: Config) -> Parameters | None:
    try:
        loader = DATA_LOADERS.find(config.data_loader.type)
    except NameLookupError:
        return None
    return Parameters(loader, DATA_LOADERS, ())


def _has_validation(config: Config) -> bool:
    args = config.data_loader.args
    if config.valid_dataset is not None or not isinstance(args, dict):
        return True
    if "validation_split" in args:
        return bool(args["validation_split"])
    loader = _loader_parameters(config)
    parameter = loader.by_name.get("validation_split") if loader else None
    own_split = DATA_LOADERS.find(config.data_loader.type).split_validation if loader else None
    return own_split is not BaseDataLoader.split_validation or bool(parameter and parameter.default)


def _column_findings(config: Config, raw: Mapping[str, Any]) -> Iterator[Finding]:
    names = [metric.column for metric in config.metrics]
    for number, name in enumerate(names):
        if name in names[:number] or name in RESERVED_COLUMNS:
            yield ("metrics", number), f"a second column {name!r}; give it another 'name'"
    monitor = config.trainer.monitor
    if monitor == "off" or config.trainer.type != "Trainer" or "metrics" in _bad_keys(raw):
        return
    columns = [*RESERVED_COLUMNS, *names]
    if _has_validation(config):
        columns += [f"val_{name}" for name in ("loss", *names)]
    column = monitor.split()[1]
    if column not in columns:
        hint = did_you_mean(column, columns)
        if re.sub("^val_", "", column) in columns and not _has_validation(config):
            hint = " (there is no validation data: set data_loader.args.validation_split)"
        yield ("trainer", "monitor"), f"nothing logs a column {column!r}{hint}"


def _bad_keys(raw: Mapping[str, Any]) -> set[Any]:
    return {path[0] for path, _ in _schema_findings(raw) if path}


def _scheduler_findings(config: Config) -> Iterator[Finding]:
    scheduler = config.lr_scheduler
    if scheduler is None or scheduler.type != PLATEAU:
        return
    if scheduler.interval == "step":
        yield ("lr_scheduler", "interval"), f"{PLATEAU} looks at an epoch's result; expected epoch"
    if config.trainer.monitor == "off":
        yield ("lr_scheduler",), f"{PLATEAU} follows trainer.monitor, which is off"
    if isinstance(scheduler.args, dict) and "mode" in scheduler.args:
        yield ("lr_scheduler", "args", "mode"), "follows trainer.monitor; remove it"
