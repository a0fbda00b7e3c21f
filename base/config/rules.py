"""What only makes sense together: rules between the keys of a config."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise, product
from typing import Any

from base.base_data_loader import BaseDataLoader
from base.config.schema import RESERVED_COLUMNS, Config
from base.data.deterministic import DETERMINISTIC
from base.errors import ConfigIssue, KeyPath, UsageError, did_you_mean, format_value
from base.registry import DATA_LOADERS, LOSSES, TRANSFORMS, WRITERS
from base.registry import DATASETS as DATASET_CLASSES
from base.registry.arguments import Parameters, items
from base.registry.build import nested_nodes, split_node
from base.runtime.device import select_device

Rule = Callable[[Config], Iterator[ConfigIssue]]

RULES: list[tuple[set[str], Rule]] = []
REQUIRED = dict.fromkeys(("name", "model", "loss", "optimizer"), "missing")
LOADER_RUNTIME = frozenset({"dataset", "seed", "indices"})
DATASETS = ("dataset", "valid_dataset", "test_dataset")
SMALLEST = {"batch_size": 1, "num_workers": 0, "timeout": 0, "prefetch_factor": 1}
PLATEAU = "ReduceLROnPlateau"
DRAWS = "may draw at random"


def rule(*sections: str) -> Callable[[Rule], Rule]:
    """Add a rule between sections, to be left out while one of them is wrong in itself."""

    def add(function: Rule) -> Rule:
        RULES.append((set(sections), function))
        return function

    return add


def check_rules(raw: Mapping[str, Any], wrong: Iterable[KeyPath]) -> Iterator[ConfigIssue]:
    """Yield what breaks a rule, `wrong` being where issues were found before."""
    # wrong args leave the meaning of their section clear, an unknown type among them does not
    unclear = {path[0] for path in wrong if "args" not in path[:-1] or path[-1] == "type"}
    clear = {key: value for key, value in raw.items() if key not in unclear and value is not None}
    config = Config.model_validate(REQUIRED | clear)
    for sections, function in RULES:
        if not sections & unclear:
            yield from function(config)


# --- device and data ----------------------------------------------------------------------------


@rule("device")
def _device_is_there(config: Config) -> Iterator[ConfigIssue]:
    try:
        select_device(config.device)
    except UsageError as error:
        yield ConfigIssue(("device",), str(error))


@rule("data_loader", *DATASETS)
def _dataset_is_made_once(config: Config) -> Iterator[ConfigIssue]:
    name, loader = config.data_loader.type, loader_parameters(config)
    if "dataset" in loader.required and config.dataset is None:
        yield ConfigIssue(("dataset",), f"missing, {name} needs it")
    if "dataset" not in loader.by_name and not loader.has_open_keywords:
        for key in DATASETS:
            if getattr(config, key) is not None:
                yield ConfigIssue((key,), f"{name} makes its own; remove one of them")


@rule("data_loader")
def _loader_gets_numbers_in_range(config: Config) -> Iterator[ConfigIssue]:
    loader = loader_parameters(config)
    for key, value in items(config.data_loader.args):
        argument, path = loader.argument_name(key), ("data_loader", "args", key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if value < SMALLEST.get(argument, value):
            yield ConfigIssue(
                path, f"expected at least {SMALLEST[argument]}, found {format_value(value)}"
            )
        if argument == "validation_split" and not (0 <= value < 1 or value == value // 1 > 0):
            yield ConfigIssue(
                path, f"expected a share from 0 to below 1, or a count, found {format_value(value)}"
            )


@rule("data_loader", *DATASETS)
def _augmentation_is_for_training(config: Config) -> Iterator[ConfigIssue]:
    """Validation and test see the training's transforms unless they have their own."""
    training, valid, test = config.dataset, config.valid_dataset, config.test_dataset
    if training is None or training.valid_transform is not None:
        return
    if valid is not None and valid.transform is not None:
        return
    is_seen = _has_validation(config) or (test is not None and test.transform is None)
    for number, node in enumerate(training.transform or [] if is_seen else []):
        if name := next(_may_draw(node.node()), ""):
            message = f"{DRAWS}; say in dataset.valid_transform what validation sees"
            yield ConfigIssue(("dataset", "transform", number), f"{name} {message}")
            return


@rule("data_loader", "dataset", "valid_dataset")
def _dataset_augments_nothing_itself(config: Config) -> Iterator[ConfigIssue]:
    """What a dataset draws, it draws for the validation that is split off it too."""
    if config.dataset and config.valid_dataset is None and _has_validation(config):
        for path, node in nested_nodes(config.dataset.args, ("dataset", "args")):
            name = next(_may_draw(node), "") if path[2] in ("transform", "transforms") else ""
            if name:
                yield ConfigIssue(
                    path, f"{name} {DRAWS}, for validation too; move it to dataset.transform"
                )


def _may_draw(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the transforms of a node that are not known to do the same each time."""
    name, args = split_node(node)
    kind = TRANSFORMS.find(name)
    known = kind.__module__.startswith("torchvision.") and kind.__name__ in DETERMINISTIC
    if not getattr(kind, "deterministic", known):
        yield name
    for _, child in nested_nodes(args):
        yield from _may_draw(child)


@rule(*DATASETS)
def _other_data_is_read_as_the_training_data(config: Config) -> Iterator[ConfigIssue]:
    """A dataset that takes `fitted` gets there what one of its type learned in training."""
    training = config.dataset.type if config.dataset else None
    for key in ("valid_dataset", "test_dataset"):
        section = getattr(config, key)
        if section is None or section.type == training:
            continue
        if "fitted" in Parameters(section.type, DATASET_CLASSES).by_name:
            message = (
                f"needs what a dataset of its type learned, found dataset: {format_value(training)}"
            )
            yield ConfigIssue((key, "type"), message)


@rule(*DATASETS)
def _whole_batches_come_last(config: Config) -> Iterator[ConfigIssue]:
    """A transform with `takes_keys` gets a batch of what the others made of single samples."""
    for key, place in product(DATASETS, ("transform", "valid_transform")):
        names = [node.type for node in getattr(getattr(config, key), place, None) or []]
        takes_keys = [getattr(TRANSFORMS.find(name), "takes_keys", False) for name in names]
        for number, (before, here) in enumerate(pairwise(takes_keys)):
            if before and not here:
                message = f"expected before {names[number]}, which takes whole batches"
                yield ConfigIssue((key, place, number + 1), message)


def loader_parameters(config: Config) -> Parameters:
    """Return what the configured data loader takes besides what the project passes to it."""
    return Parameters(config.data_loader.type, DATA_LOADERS, LOADER_RUNTIME)


def _has_validation(config: Config) -> bool:
    """Tell whether there is validation data, or may be."""
    loader = loader_parameters(config)
    own_way = loader.target.split_validation is not BaseDataLoader.split_validation
    if config.valid_dataset is not None or own_way or "validation_split" not in loader.by_name:
        return True
    default = loader.by_name["validation_split"].default
    return bool(loader.named(config.data_loader.args).get("validation_split", default))


# --- what is watched ----------------------------------------------------------------------------


@rule("metrics")
def _columns_differ(config: Config) -> Iterator[ConfigIssue]:
    taken = {*RESERVED_COLUMNS, "val_loss"}
    for number, metric in enumerate(config.metrics):
        columns = [metric.column, f"val_{metric.column}"]
        if not re.fullmatch("[A-Za-z0-9_]+", metric.column):
            message = f"expected letters, digits and '_', found {format_value(metric.column)}"
            yield ConfigIssue(("metrics", number, "name"), message)
        if second := [column for column in columns if column in taken]:
            yield ConfigIssue(
                ("metrics", number), f"a second column {second[0]!r}; give it another 'name'"
            )
        taken.update(columns)


@rule("metrics", "trainer", "data_loader", "valid_dataset", "loss", "callbacks")
def _monitor_is_logged(config: Config) -> Iterator[ConfigIssue]:
    if config.trainer.type != "Trainer":
        return
    columns_of = getattr(LOSSES.find(config.loss.type), "columns", None)
    parts = columns_of(config.loss.args) if columns_of else ()
    names = ["loss", *parts, *(metric.column for metric in config.metrics)]
    of_validation = [f"val_{name}" for name in names]
    columns = {*RESERVED_COLUMNS, *names, *(of_validation if _has_validation(config) else ())}
    monitors: list[tuple[KeyPath, Any]] = [(("trainer", "monitor"), config.trainer.monitor)]
    for number, callback in enumerate(config.callbacks):
        if callback.type == "SaveBest" and isinstance(callback.args, dict):
            path = ("callbacks", number, "args", "monitor")
            monitors.append((path, callback.args.get("monitor")))
    for path, monitor in monitors:
        mode, _, column = str(monitor).partition(" ")
        if mode in ("min", "max") and column not in columns:
            hint = did_you_mean(column, columns)
            if column in of_validation:
                hint = " (there is no validation data: set data_loader.args.validation_split)"
            yield ConfigIssue(path, f"nothing logs a column {format_value(column)}{hint}")


@rule("lr_scheduler", "optimizer")
def _learning_rate_stands_once(config: Config) -> Iterator[ConfigIssue]:
    scheduler, args = config.lr_scheduler, config.optimizer.args
    if scheduler is None or scheduler.type != "OneCycleLR" or not isinstance(args, dict):
        return
    if "max_lr" in scheduler.args and "lr" in args:
        message = "would override optimizer.args.lr, which it is where left out; remove one"
        yield ConfigIssue(("lr_scheduler", "args", "max_lr"), message)


@rule("lr_scheduler", "trainer")
def _plateau_follows_the_monitor(config: Config) -> Iterator[ConfigIssue]:
    scheduler = config.lr_scheduler
    if scheduler is None or scheduler.type != PLATEAU:
        return
    if scheduler.interval == "step":
        yield ConfigIssue(
            ("lr_scheduler", "interval"), f"{PLATEAU} looks at an epoch's result; expected epoch"
        )
    if config.trainer.monitor == "off":
        yield ConfigIssue(("lr_scheduler",), f"{PLATEAU} follows trainer.monitor, which is off")
    if isinstance(scheduler.args, list) or "mode" in scheduler.args:
        yield ConfigIssue(("lr_scheduler", "args", "mode"), "follows trainer.monitor; remove it")


# --- what the stock Trainer does ----------------------------------------------------------------


@rule("loss", "trainer")
def _loss_takes_output_and_target(config: Config) -> Iterator[ConfigIssue]:
    kind = LOSSES.find(config.loss.type)
    if config.trainer.type != "Trainer" or not inspect.isclass(kind):
        return
    _, *takes = inspect.signature(getattr(kind, "forward", kind.__call__)).parameters.values()
    if sum(parameter.default is parameter.empty for parameter in takes) > 2:
        names = ", ".join(parameter.name for parameter in takes)
        message = "the stock step gives (output, target); override train_step in a trainer of yours"
        yield ConfigIssue(("loss",), f"{config.loss.type} takes ({names}), {message}")


@rule("trainer")
def _trainer_agrees_with_itself(config: Config) -> Iterator[ConfigIssue]:
    trainer = config.trainer
    if trainer.early_stop and trainer.monitor == "off":
        yield ConfigIssue(
            ("trainer", "early_stop"), "needs a trainer.monitor to judge improvement by"
        )
    if trainer.type == "Trainer" and trainer.args:
        yield ConfigIssue(
            ("trainer", "args"), "the stock Trainer takes none; they go to a trainer of yours"
        )
    if trainer.len_epoch is not None and trainer.limit_batches is not None:
        yield ConfigIssue(
            ("trainer", "limit_batches"), "len_epoch fixes the steps of an epoch; remove one"
        )


@rule("optimizer", "trainer")
def _lbfgs_takes_whole_steps(config: Config) -> Iterator[ConfigIssue]:
    """Its line search asks for loss and gradient by itself; nothing else comes in between."""
    free = {"accumulate": (1,), "clip_grad_norm": (None,), "precision": ("fp32", "bf16")}
    for key, values in free.items():
        if config.optimizer.type == "LBFGS" and getattr(config.trainer, key) not in values:
            yield ConfigIssue(("trainer", key), "LBFGS evaluates a whole step itself; remove it")


@rule("logger")
def _writers_fit_the_config(config: Config) -> Iterator[ConfigIssue]:
    for name, options in config.logger.writers.items():
        check_config = getattr(WRITERS.find(name), "check_config", None)
        if check_config and options is not False:
            yield from check_config(config, ("logger", name))
