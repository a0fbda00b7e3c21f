"""What only makes sense together: rules between the keys of a config."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from base.base_data_loader import BaseDataLoader
from base.config.schema import RESERVED_COLUMNS, Config
from base.data.deterministic import DETERMINISTIC
from base.errors import ConfigError, ConfigIssue, KeyPath, UsageError, did_you_mean, format_value
from base.registry import DATA_LOADERS, LOSSES, TRAINERS, TRANSFORMS, Registry
from base.registry.arguments import Parameters
from base.registry.build import Node, nested_nodes, split_node
from base.runtime.device import select_device

REQUIRED = dict.fromkeys(("name", "model", "loss", "optimizer"), "missing")
DATASET_KEYS = ("dataset", "valid_dataset", "test_dataset")
LOADER_RUNTIME = frozenset({"dataset", "seed", "indices"})  # what the project passes to a loader
PLATEAU = "ReduceLROnPlateau"
DRAWS = "may draw at random"


def check_rules(
    values: Mapping[str, Any],
    wrong: Iterable[KeyPath],
    nodes: Iterable[tuple[KeyPath, Node, Registry]],
) -> Iterator[ConfigIssue]:
    """Yield what breaks a rule of ours, or one that the class of a node states.

    `wrong` are the paths of the issues found before. What needs a section that is wrong in itself
    has to wait until that is right.
    """
    config = _ClearSections(values, wrong)
    for rule in RULES:
        with suppress(ConfigError):
            yield from rule(config)
    for path, node, registry in nodes:
        with suppress(ConfigError):
            kind = registry.find(split_node(node)[0])
            yield from kind.check_config(config, path) if hasattr(kind, "check_config") else ()


class _ClearSections:
    """A config of which only the sections can be read that are not wrong in themselves."""

    def __init__(self, values: Mapping[str, Any], wrong: Iterable[KeyPath]) -> None:
        self._wrong = {path[0] for path in wrong if "args" not in path[:-1]}
        clear = {key: value for key, value in values.items() if key not in self._wrong}
        self._config = Config.model_validate(REQUIRED | clear)

    def __getattr__(self, section: str) -> Any:
        if section in self._wrong:
            raise ConfigError([])
        return getattr(self._config, section)


# --- data ---------------------------------------------------------------------------------------


def _device_is_there(config: Config) -> Iterator[ConfigIssue]:
    try:
        select_device(config.device)
    except UsageError as error:
        yield ConfigIssue(("device",), str(error))


def _dataset_is_made_once(config: Config) -> Iterator[ConfigIssue]:
    name, loader = config.data_loader.type, loader_parameters(config)
    if "dataset" in loader.required and config.dataset is None:
        yield ConfigIssue(("dataset",), f"missing, {name} needs it")
    if "dataset" not in loader.by_name and not loader.has_open_keywords:
        for key in DATASET_KEYS:
            if getattr(config, key) is not None:
                yield ConfigIssue((key,), f"{name} makes its own; remove one of them")


def _augmentation_is_for_training(config: Config) -> Iterator[ConfigIssue]:
    """Validation and test see the training's transforms unless they have their own."""
    training, valid, test = config.dataset, config.valid_dataset, config.test_dataset
    if training is None or training.valid_transform is not None:
        return
    if valid is not None and valid.transform is not None:
        return
    is_seen = has_validation(config) or (test is not None and test.transform is None)
    for number, node in enumerate(training.transform or [] if is_seen else []):
        if name := next(_may_draw(node.node()), ""):
            message = f"{name} {DRAWS}; say in dataset.valid_transform what validation sees"
            yield ConfigIssue(("dataset", "transform", number), message)
            return


def _dataset_augments_nothing_itself(config: Config) -> Iterator[ConfigIssue]:
    """What a dataset draws, it draws for the validation that is split off it too."""
    if config.dataset and config.valid_dataset is None and has_validation(config):
        for path, node in nested_nodes(config.dataset.args, ("dataset", "args")):
            name = next(_may_draw(node), "") if {*path} & {"transform", "transforms"} else ""
            if name:
                message = f"{name} {DRAWS}, for validation too; move it to dataset.transform"
                yield ConfigIssue(path, message)


def _may_draw(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the transforms of a node that are not known to do the same each time."""
    name, args = split_node(node)
    kind = TRANSFORMS.find(name)
    known = kind.__module__.startswith("torchvision.") and kind.__name__ in DETERMINISTIC
    if not getattr(kind, "deterministic", known):
        yield name
    for _, child in nested_nodes(args):
        yield from _may_draw(child)


def loader_parameters(config: Config) -> Parameters:
    """Return what the configured data loader takes besides what the project passes to it."""
    return Parameters(config.data_loader.type, DATA_LOADERS, LOADER_RUNTIME)


def has_validation(config: Config) -> bool:
    """Tell whether there is validation data, or may be."""
    loader = loader_parameters(config)
    own_way = loader.target.split_validation is not BaseDataLoader.split_validation
    if config.valid_dataset is not None or own_way or "validation_split" not in loader.by_name:
        return True
    default = loader.by_name["validation_split"].default
    return bool(loader.named(config.data_loader.args).get("validation_split", default))


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
    names = ["loss", *trainer.columns(config.trainer.args)]
    names += loss.columns(config.loss.args) if hasattr(loss, "columns") else ()
    names += [metric.column for metric in config.metrics]
    of_validation = [f"val_{name}" for name in names]
    columns = {*RESERVED_COLUMNS, *names, *(of_validation if has_validation(config) else ())}
    if column not in columns:
        hint = did_you_mean(column, columns)
        if column in of_validation:
            hint = " (there is no validation data: set data_loader.args.validation_split)"
        yield ConfigIssue(path, f"nothing logs a column {format_value(column)}{hint}")


# --- settings that exclude one another ----------------------------------------------------------


def _settings_agree(config: Config) -> Iterator[ConfigIssue]:
    trainer = config.trainer
    is_off = trainer.monitor == "off"
    if trainer.early_stop and is_off:
        message = "needs a trainer.monitor to judge improvement by"
        yield ConfigIssue(("trainer", "early_stop"), message)
    if trainer.len_epoch is not None and trainer.limit_batches is not None:
        message = "len_epoch fixes the steps of an epoch; remove one"
        yield ConfigIssue(("trainer", "limit_batches"), message)
    scheduler = config.lr_scheduler
    if scheduler is not None and scheduler.type == PLATEAU:
        if scheduler.interval == "step":
            message = f"{PLATEAU} looks at an epoch's result; expected epoch"
            yield ConfigIssue(("lr_scheduler", "interval"), message)
        if is_off:
            message = f"{PLATEAU} follows trainer.monitor, which is off"
            yield ConfigIssue(("lr_scheduler",), message)
        if "mode" in scheduler.args:
            message = "follows trainer.monitor; remove it"
            yield ConfigIssue(("lr_scheduler", "args", "mode"), message)


def _lbfgs_takes_whole_steps(config: Config) -> Iterator[ConfigIssue]:
    """Its line search asks for loss and gradient by itself; nothing else comes in between."""
    free = {"accumulate": (1,), "clip_grad_norm": (None,), "precision": ("fp32", "bf16")}
    for key, values in free.items():
        if config.optimizer.type == "LBFGS" and getattr(config.trainer, key) not in values:
            message = "LBFGS evaluates a whole step itself; remove it"
            yield ConfigIssue(("trainer", key), message)


RULES = (
    _device_is_there,
    _dataset_is_made_once,
    _augmentation_is_for_training,
    _dataset_augments_nothing_itself,
    _columns_differ,
    _monitor_is_logged,
    _settings_agree,
    _lbfgs_takes_whole_steps,
)
