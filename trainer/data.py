"""From the data sections of a config to prepared loaders of training, validation and test data."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from base import BaseDataLoader
from base.config.rules import loader_parameters
from base.config.schema import Config
from base.errors import DataError
from base.registry import DATA_LOADERS, DATASETS, TRANSFORMS
from base.runtime import distributed
from trainer.parts import build_part, build_parts

log = logging.getLogger("train")

Fitted = Mapping[str, Any] | None  # what a dataset learned of the training samples

# Where the transforms of each kind of data stand, the first there counting: the training's
# augmentation reaches validation and test only where nothing else is said.
TRAIN_TRANSFORM = ("dataset.transform",)
VALID_TRANSFORM = ("valid_dataset.transform", "dataset.valid_transform", *TRAIN_TRANSFORM)
TEST_TRANSFORM = ("test_dataset.transform", *VALID_TRANSFORM)
WHOLE_IN_ORDER = {"shuffle": False, "validation_split": 0}  # args of a loader, where it takes them


def build_data(
    config: Config,
    device: torch.device,
    fitted: Fitted = None,
    *,
    in_memory: bool | Literal["auto"] = "auto",
) -> tuple[BaseDataLoader, BaseDataLoader | None]:
    """Return the loaders of training and validation data, the second None if there is none.

    Without `fitted` the dataset learns it here, and passes it on to `valid_dataset`. `in_memory` is
    what a run has decided for itself, if its config leaves that open.

    Raises:
        DataError: the data is missing, damaged, or does not fit the split.
    """
    with _data_errors(), _main_process_first():
        loader = build_loader(config, "dataset", fitted)
        if config.valid_dataset is None:
            valid_loader = loader.split_validation()
        else:
            valid_loader = build_loader(config, "valid_dataset", loader.fitted, **WHOLE_IN_ORDER)
        _prepare(loader, config, device, TRAIN_TRANSFORM, "training", in_memory)
        if valid_loader is not None:
            _prepare(valid_loader, config, device, VALID_TRANSFORM, "validation", in_memory)
    return loader, valid_loader


def has_test_data(config: Config) -> bool:
    """Tell whether a config says what to test on: a dataset, or a loader that makes its own."""
    return config.test_dataset is not None or "training" in loader_parameters(config).by_name


def build_test_data(config: Config, device: torch.device, fitted: Fitted = None) -> BaseDataLoader:
    """Return the loader of test data: `test_dataset`, or the loader built with training=False.

    Raises:
        ConfigError: the config names no test data.
        DataError: the data is missing or damaged.
    """
    if not has_test_data(config):
        raise config.issue(
            ("test_dataset",),
            f"missing: nothing says what to test on, and {config.data_loader.type} takes no "
            "'training' to be rebuilt with",
        )
    changes = {} if config.test_dataset else {"training": False}
    with _data_errors(), _main_process_first():
        loader = build_loader(config, "test_dataset", fitted, **WHOLE_IN_ORDER, **changes)
        _prepare(loader, config, device, TEST_TRANSFORM, "test")
    return loader


def build_loader(
    config: Config, section: str, fitted: Fitted = None, **changes: Any
) -> BaseDataLoader:
    """Build the configured loader over a section's dataset, with some of its args changed.

    A dataset of the training's class is given `fitted` if it takes that.

    Raises:
        ConfigError: data that is not for training would learn of itself.
        DataError: the data is missing or damaged.
    """
    runtime, node, loader = {}, config.data_loader, loader_parameters(config)
    if changed := {key: value for key, value in changes.items() if key in loader.by_name}:
        node = node.model_copy(update={"args": loader.named(node.args) | changed})
    with _data_errors():
        if (dataset := getattr(config, section)) is not None:
            is_alike = dataset.type == getattr(config.dataset, "type", None)
            learned = {"fitted": fitted} if fitted and is_alike else {}
            built = build_part(config, (section,), dataset, DATASETS, **learned)
            if section != "dataset" and not learned and getattr(built, "fitted", None):
                message = "nothing says what was learned of the training data; train a new run"
                raise config.issue((section,), message)
            runtime["dataset"] = built
        return build_part(config, ("data_loader",), node, DATA_LOADERS, **runtime)


def build_transforms(config: Config, places: Sequence[str]) -> list[Callable]:
    """Return the transforms that stand at the first of the places where there are any."""
    for place in places:
        section, _, key = place.partition(".")
        nodes = getattr(getattr(config, section), key, None)
        if nodes is not None:
            return build_parts(config, (section, key), nodes, TRANSFORMS)
    return []


def _prepare(
    loader: BaseDataLoader,
    config: Config,
    device: torch.device,
    places: Sequence[str],
    name: str,
    decided: bool | Literal["auto"] = "auto",
) -> None:
    in_memory = config.data_loader.in_memory
    choice = loader.prepare(
        build_transforms(config, places),
        in_memory=decided if in_memory == "auto" else in_memory,
        device=device,
        training=name == "training",
    )
    log.info("%s data: %s samples, %s", name, f"{loader.num_samples:,}", choice)


@contextmanager
def _main_process_first() -> Iterator[None]:
    """Let the main process fetch data before the others look for it."""
    if not distributed.is_main():
        distributed.barrier()
    yield
    if distributed.is_main():
        distributed.barrier()


@contextmanager
def _data_errors() -> Iterator[None]:
    """Turn a missing or damaged dataset into one line that says where its files belong."""
    try:
        yield
    except (OSError, EOFError, RuntimeError) as error:
        dataset = _dataset_in_traceback(error)
        if dataset is None and not isinstance(error, OSError | EOFError):
            raise  # a bug of the project's own dataset keeps its traceback
        name = type(dataset).__name__ if dataset is not None else "the dataset"
        folder = getattr(dataset, "raw_folder", None) or getattr(dataset, "root", None)
        message = f"{name} could not be fetched or read ({' '.join(str(error).split())})"
        if folder is not None:
            message += (
                f". Put its files into {folder}/, or start with data that needs no download: "
                "python train.py -c digits.yaml"
            )
        raise DataError(message) from error


def _dataset_in_traceback(error: BaseException) -> Dataset | None:
    """Return the torchvision dataset in whose code an error arose, if it did."""
    for frame, _ in walk_tb(error.__traceback__):
        thing = frame.f_locals.get("self")
        if isinstance(thing, Dataset) and type(thing).__module__.startswith("torchvision."):
            return thing
    return None
