"""From the data sections of a config to prepared loaders of training, validation and test data."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from traceback import extract_tb
from typing import Any

import torch

from base import BaseDataLoader
from base.config.rules import loader_parameters
from base.config.schema import Config, NodeConfig
from base.errors import DataError
from base.registry import DATA_LOADERS, DATASETS, TRANSFORMS
from base.runtime import distributed
from trainer.parts import build_part, build_parts

log = logging.getLogger("train")

Fitted = Mapping[str, Any] | None  # what a dataset learned of the training samples

# Where transforms are looked for, and the first place of each kind of data: the training's
# augmentation reaches validation and test only where nothing else is said.
PLACES = (
    ("test_dataset", "transform"), ("valid_dataset", "transform"),
    ("dataset", "valid_transform"), ("dataset", "transform"),
)  # fmt: skip
FIRST_PLACE = {"test": 0, "validation": 1, "training": 3}
WHOLE_IN_ORDER = {"shuffle": False, "validation_split": 0}  # args of a loader, where it takes them


def build_data(
    config: Config, device: torch.device, fitted: Fitted = None, *, in_memory: bool | str = "auto"
) -> tuple[BaseDataLoader, BaseDataLoader | None]:
    """Return the loaders of training and validation data, the second None if there is none.

    Without `fitted` the dataset learns it here, and passes it on to `valid_dataset`. `in_memory` is
    what the run decided for itself before, where its config leaves that open.

    Raises:
        DataError: the data is missing, damaged, or does not fit the split.
    """
    with _main_process_first():
        loader = build_loader(config, "dataset", fitted)
        if config.valid_dataset is None:
            valid_loader = loader.split_validation()
        else:
            valid_loader = build_loader(config, "valid_dataset", loader.fitted, **WHOLE_IN_ORDER)
        _prepare(loader, config, device, "training", in_memory)
        if valid_loader is not None:
            _prepare(valid_loader, config, device, "validation", in_memory)
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
        no_other = f"{config.data_loader.type} takes no 'training' to be rebuilt with"
        message = f"missing: nothing says what to test on, and {no_other}"
        raise config.issue(("test_dataset",), message)
    changes = {} if config.test_dataset else {"training": False}
    with _main_process_first():
        loader = build_loader(config, "test_dataset", fitted, **WHOLE_IN_ORDER, **changes)
        _prepare(loader, config, device, "test", "auto")
    return loader


def build_loader(
    config: Config, section: str, fitted: Fitted = None, **changes: Any
) -> BaseDataLoader:
    """Build the configured loader over a section's dataset, with some of its args changed.

    A dataset that takes `fitted` is given it; the config's rules see that it is of the training's
    class.

    Raises:
        DataError: the data is missing or damaged.
    """
    dataset, node, loader = getattr(config, section), config.data_loader, loader_parameters(config)
    if changed := {key: value for key, value in changes.items() if key in loader.by_name}:
        node = node.model_copy(update={"args": loader.named(node.args) | changed})
    runtime = {"seed": config.seed}
    with _data_errors(dataset or node):
        if dataset is not None:
            learned = fitted or None
            runtime["dataset"] = build_part(config, (section,), dataset, DATASETS, fitted=learned)
        return build_part(config, ("data_loader",), node, DATA_LOADERS, **runtime)


def build_transforms(config: Config, kind: str) -> list[Callable]:
    """Return the transforms of training, validation or test data."""
    for section, key in PLACES[FIRST_PLACE[kind] :]:
        if (nodes := getattr(getattr(config, section), key, None)) is not None:
            return build_parts(config, (section, key), nodes, TRANSFORMS)
    return []


def _prepare(
    loader: BaseDataLoader, config: Config, device: torch.device, kind: str, decided: bool | str
) -> None:
    configured = config.data_loader.in_memory
    choice = loader.prepare(
        build_transforms(config, kind),
        in_memory=decided if configured == "auto" else configured,
        device=device,
        training=kind == "training",
    )
    log.info("%s data: %s samples, %s", kind, f"{loader.num_samples:,}", choice)


@contextmanager
def _main_process_first() -> Iterator[None]:
    """Let the main process fetch data before the others look for it."""
    if not distributed.is_main():
        distributed.barrier()
    yield
    if distributed.is_main():
        distributed.barrier()


@contextmanager
def _data_errors(node: NodeConfig) -> Iterator[None]:
    """Turn missing or damaged files of a dataset into one line that says where they belong."""
    try:
        yield
    except (OSError, EOFError, RuntimeError) as error:
        torchvisions = f"{os.sep}torchvision{os.sep}datasets"
        frames = extract_tb(error.__traceback__)
        if isinstance(error, RuntimeError) and not any(torchvisions in f.filename for f in frames):
            raise  # a bug of the project's own dataset keeps its traceback
        args = node.args if isinstance(node.args, dict) else {}
        folder = args.get("root") or args.get("data_dir")
        where = f"; its files belong below {folder}/" if folder else ""
        cause = " ".join(str(error).split())
        message = f"the data of {node.type} could not be fetched or read ({cause}){where}"
        raise DataError(message) from error
