"""What only makes sense together: rules between the keys of a config."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from base.config.data_rules import DATA_RULES, has_validation
from base.config.schema import RESERVED_COLUMNS, SECTIONS, Config, NodeConfig
from base.errors import ConfigIssue, KeyPath, did_you_mean, format_value
from base.registry import LOSSES, REGISTRIES, TRAINERS, WRITERS

Rule = Callable[[Config], Iterator[ConfigIssue]]

REQUIRED = dict.fromkeys(("name", "model", "loss", "optimizer"), "missing")
PLATEAU = "ReduceLROnPlateau"


def check_rules(values: Mapping[str, Any], wrong: Iterable[KeyPath]) -> Iterator[ConfigIssue]:
    """Yield what breaks a rule, `wrong` being the paths of the issues found before."""
    config = _ClearSections(values, wrong)
    classes = (partial(_ask_classes, section=section) for section in (*SECTIONS, "logger"))
    for follow in (*RULES, *classes):
        with suppress(_UnclearSectionError):
            yield from follow(config)


def _ask_classes(config: Config, section: str) -> Iterator[ConfigIssue]:
    """Yield what the classes that a section names say must not be combined with them."""
    for path, kind in _classes_in(config, section):
        if check := getattr(kind, "check_config", None):
            with suppress(_UnclearSectionError):
                yield from check(config, path)


def _classes_in(config: Config, section: str) -> Iterator[tuple[KeyPath, Any]]:
    found = getattr(config, section, None)
    if section == "logger":
        on = [name for name, options in found.writers.items() if options is not False]
        nodes = {(section, name): name for name in on}
    elif isinstance(found, NodeConfig):
        nodes = {(section,): found.type}
    else:
        nodes = {(section, number): node.type for number, node in enumerate(found or ())}
    registry = WRITERS if section == "logger" else REGISTRIES[SECTIONS[section]]
    yield from ((path, registry.find(name)) for path, name in nodes.items())


class _UnclearSectionError(Exception):
    """A rule needs a section that is wrong in itself, and has to wait until that is right."""


class _ClearSections:
    """A config of which only the sections can be read that are not wrong in themselves."""

    def __init__(self, values: Mapping[str, Any], wrong: Iterable[KeyPath]) -> None:
        # wrong args leave the meaning of their section clear, an unknown type among them does not
        self._unclear = {path[0] for path in wrong if "args" not in path[:-1] or path[-1] == "type"}
        clear = {key: value for key, value in values.items() if key not in self._unclear}
        self._config = Config.model_validate(REQUIRED | clear)

    def __getattr__(self, section: str) -> Any:
        if section in self._unclear:
            raise _UnclearSectionError
        return getattr(self._config, section)


# --- columns and what follows them --------------------------------------------------------------


def _columns_differ(config: Config) -> Iterator[ConfigIssue]:
    taken = {*RESERVED_COLUMNS, "val_loss"}
    for number, metric in enumerate(config.metrics):
        columns = [metric.column, f"val_{metric.column}"]
        if not re.fullmatch("[A-Za-z0-9_]+", metric.column):
            message = f"expected letters, digits and '_', found {format_value(metric.column)}"
            yield ConfigIssue(("metrics", number, "name"), message)
        if second := [column for column in columns if column in taken]:
            message = f"a second column {second[0]!r}; give it another 'name'"
            yield ConfigIssue(("metrics", number), message)
        taken.update(columns)


def _monitor_is_logged(config: Config) -> Iterator[ConfigIssue]:
    yield from check_monitor_column(config, config.trainer.monitor, ("trainer", "monitor"))


def check_monitor_column(config: Config, monitor: Any, path: KeyPath) -> Iterator[ConfigIssue]:
    """Yield an issue where "min COLUMN" or "max COLUMN" names a column that nothing logs.

    What is logged is known where the trainer's class itself states its `columns`; a subclass may
    log others.
    """
    mode, _, column = str(monitor).partition(" ")
    trainer, loss = TRAINERS.find(config.trainer.type), LOSSES.find(config.loss.type)
    if mode not in ("min", "max") or "columns" not in vars(trainer):
        return
    parts = [*_columns(trainer, config.trainer.args), *_columns(loss, config.loss.args)]
    names = ["loss", *parts, *(metric.column for metric in config.metrics)]
    of_validation = [f"val_{name}" for name in names]
    columns = {*RESERVED_COLUMNS, *names, *(of_validation if has_validation(config) else ())}
    if column not in columns:
        hint = did_you_mean(column, columns)
        if column in of_validation:
            hint = " (there is no validation data: set data_loader.args.validation_split)"
        yield ConfigIssue(path, f"nothing logs a column {format_value(column)}{hint}")


def _columns(kind: Any, args: dict[str, Any] | list[Any]) -> Iterable[str]:
    """Return the columns that a class says it logs besides the loss, when it is built with args."""
    return kind.columns(args) if hasattr(kind, "columns") else ()


def _early_stop_has_a_monitor(config: Config) -> Iterator[ConfigIssue]:
    if config.trainer.early_stop and config.trainer.monitor == "off":
        message = "needs a trainer.monitor to judge improvement by"
        yield ConfigIssue(("trainer", "early_stop"), message)


def _length_of_an_epoch_stands_once(config: Config) -> Iterator[ConfigIssue]:
    if config.trainer.len_epoch is not None and config.trainer.limit_batches is not None:
        message = "len_epoch fixes the steps of an epoch; remove one"
        yield ConfigIssue(("trainer", "limit_batches"), message)


# --- classes of torch that need the others to agree ---------------------------------------------


def _learning_rate_stands_once(config: Config) -> Iterator[ConfigIssue]:
    scheduler, args = config.lr_scheduler, config.optimizer.args
    if scheduler is None or scheduler.type != "OneCycleLR" or not isinstance(args, dict):
        return
    if "max_lr" in scheduler.args and "lr" in args:
        message = "would override optimizer.args.lr, which it is where left out; remove one"
        yield ConfigIssue(("lr_scheduler", "args", "max_lr"), message)


def _plateau_follows_the_monitor(config: Config) -> Iterator[ConfigIssue]:
    scheduler = config.lr_scheduler
    if scheduler is None or scheduler.type != PLATEAU:
        return
    if scheduler.interval == "step":
        message = f"{PLATEAU} looks at an epoch's result; expected epoch"
        yield ConfigIssue(("lr_scheduler", "interval"), message)
    if config.trainer.monitor == "off":
        message = f"{PLATEAU} follows trainer.monitor, which is off"
        yield ConfigIssue(("lr_scheduler",), message)
    if isinstance(scheduler.args, list) or "mode" in scheduler.args:
        message = "follows trainer.monitor; remove it"
        yield ConfigIssue(("lr_scheduler", "args", "mode"), message)


def _lbfgs_takes_whole_steps(config: Config) -> Iterator[ConfigIssue]:
    """Its line search asks for loss and gradient by itself; nothing else comes in between."""
    free = {"accumulate": (1,), "clip_grad_norm": (None,), "precision": ("fp32", "bf16")}
    for key, values in free.items():
        if config.optimizer.type == "LBFGS" and getattr(config.trainer, key) not in values:
            message = "LBFGS evaluates a whole step itself; remove it"
            yield ConfigIssue(("trainer", key), message)


RULES: tuple[Rule, ...] = (
    *DATA_RULES,
    _columns_differ,
    _monitor_is_logged,
    _early_stop_has_a_monitor,
    _length_of_an_epoch_stands_once,
    _learning_rate_stands_once,
    _plateau_follows_the_monitor,
    _lbfgs_takes_whole_steps,
)
