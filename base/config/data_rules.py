"""Rules of data: what datasets, transforms and the data loader need of each other."""

from collections.abc import Iterator, Mapping
from itertools import pairwise, product
from typing import Any

from base.base_data_loader import BaseDataLoader
from base.config.schema import Config
from base.data.deterministic import DETERMINISTIC
from base.errors import ConfigIssue, UsageError, format_value
from base.registry import DATA_LOADERS, TRANSFORMS
from base.registry import DATASETS as DATASET_CLASSES
from base.registry.arguments import Parameters
from base.registry.build import nested_nodes, split_node
from base.runtime.device import select_device

DATASETS = ("dataset", "valid_dataset", "test_dataset")
LOADER_RUNTIME = frozenset({"dataset", "seed", "indices"})  # what the project passes to a loader
DRAWS = "may draw at random"


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
        for key in DATASETS:
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
            message = f"{DRAWS}; say in dataset.valid_transform what validation sees"
            yield ConfigIssue(("dataset", "transform", number), f"{name} {message}")
            return


def _dataset_augments_nothing_itself(config: Config) -> Iterator[ConfigIssue]:
    """What a dataset draws, it draws for the validation that is split off it too."""
    if config.dataset and config.valid_dataset is None and has_validation(config):
        for path, node in nested_nodes(config.dataset.args, ("dataset", "args")):
            name = next(_may_draw(node), "") if path[2] in ("transform", "transforms") else ""
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


def _other_data_is_read_as_the_training_data(config: Config) -> Iterator[ConfigIssue]:
    """A dataset that takes `fitted` gets there what one of its type learned in training."""
    training = config.dataset.type if config.dataset else None
    for key in ("valid_dataset", "test_dataset"):
        section = getattr(config, key)
        if section is None or section.type == training:
            continue
        if "fitted" in Parameters(section.type, DATASET_CLASSES).by_name:
            found = format_value(training)
            message = f"needs what a dataset of its type learned, found dataset: {found}"
            yield ConfigIssue((key, "type"), message)


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


def has_validation(config: Config) -> bool:
    """Tell whether there is validation data, or may be."""
    loader = loader_parameters(config)
    own_way = loader.target.split_validation is not BaseDataLoader.split_validation
    if config.valid_dataset is not None or own_way or "validation_split" not in loader.by_name:
        return True
    default = loader.by_name["validation_split"].default
    return bool(loader.named(config.data_loader.args).get("validation_split", default))


DATA_RULES = (
    _device_is_there,
    _dataset_is_made_once,
    _augmentation_is_for_training,
    _dataset_augments_nothing_itself,
    _other_data_is_read_as_the_training_data,
    _whole_batches_come_last,
)
