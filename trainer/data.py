"""From the data sections of a config to prepared loaders of training, validation and test data."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import Dataset

from base import BaseDataLoader, distributed
from base.config import Config, DatasetConfig
from base.config_rules import loader_parameters
from base.errors import DataError
from base.registry import DATA_LOADERS, DATASETS, TRANSFORMS
from trainer.parts import build_part

log = logging.getLogger("train")


def build_data(
    config: Config, device: torch.device
) -> tuple[BaseDataLoader, BaseDataLoader | None]:
    """Return the loaders of training and validation data, the second None if there is none.

    Raises:
        DataError: the data is missing, damaged, or does not fit the split.
    """
    with _data_errors(), _main_process_first():
        loader = build_loader(config, config.dataset, "dataset")
        if config.valid_dataset is None:
            valid_loader = loader.split_validation()
        else:
            valid_loader = build_loader(
                config, config.valid_dataset, "valid_dataset", shuffle=False, validation_split=0
            )
        _prepare(loader, config, device, name="training", transform=train_transform(config))
        if valid_loader is not None:
            _prepare(valid_loader, config, device, transform=valid_transform(config))
    config.data_loader.in_memory = loader.in_memory  # a resumed run keeps the choice
    return loader, valid_loader


def build_test_data(config: Config, device: torch.device) -> BaseDataLoader:
    """Return the loader of test data: `test_dataset`, or the loader built with training=False.

    Raises:
        ConfigError: the config names no test data.
        DataError: the data is missing or damaged.
    """
    takes_training = "training" in loader_parameters(config).by_name
    if config.test_dataset is None and not takes_training:
        raise config.mistake(
            "test_dataset",
            f"missing: nothing says what to test on, and {config.data_loader.type} takes no "
            "'training' to be rebuilt with",
        )
    changes = {} if config.test_dataset else {"training": False}
    with _data_errors(), _main_process_first():
        loader = build_loader(
            config, config.test_dataset, "test_dataset",
            shuffle=False, validation_split=0, **changes,
        )  # fmt: skip
        _prepare(loader, config, device, name="test", transform=test_transform(config))
    return loader


def build_loader(
    config: Config, dataset: DatasetConfig | None, path: str, **changes: Any
) -> BaseDataLoader:
    """Build the configured loader over a dataset, with some of its args changed.

    Raises:
        DataError: the data is missing or damaged.
    """
    runtime = {}
    node = config.data_loader
    if changes:
        loader = loader_parameters(config)
        changed = {key: value for key, value in changes.items() if key in loader.by_name}
        node = node.model_copy(update={"args": loader.named(node.args) | changed})
    with _data_errors():
        if dataset is not None:
            runtime["dataset"] = build_part(config, path, dataset, DATASETS)
        return build_part(config, "data_loader", node, DATA_LOADERS, **runtime)


def train_transform(config: Config) -> list[Callable]:
    """Return what training samples go through."""
    return _transforms(config, config.dataset, "dataset", "transform")


def valid_transform(config: Config) -> list[Callable]:
    """Return what validation sees: never the training's augmentation by accident."""
    if config.valid_dataset is not None and config.valid_dataset.transform is not None:
        return _transforms(config, config.valid_dataset, "valid_dataset", "transform")
    if config.dataset is not None and config.dataset.valid_transform is not None:
        return _transforms(config, config.dataset, "dataset", "valid_transform")
    return train_transform(config)


def test_transform(config: Config) -> list[Callable]:
    """Return what test samples go through: their own transforms, or validation's."""
    if config.test_dataset is not None and config.test_dataset.transform is not None:
        return _transforms(config, config.test_dataset, "test_dataset", "transform")
    return valid_transform(config)


def _transforms(
    config: Config, dataset: DatasetConfig | None, path: str, key: str
) -> list[Callable]:
    nodes = getattr(dataset, key, None) or []
    return [
        build_part(config, f"{path}.{key}.{number}", node, TRANSFORMS)
        for number, node in enumerate(nodes)
    ]


def _prepare(
    loader: BaseDataLoader,
    config: Config,
    device: torch.device,
    *,
    transform: list[Callable],
    name: str = "validation",
) -> None:
    choice = loader.prepare(
        transform,
        in_memory=config.data_loader.in_memory,
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
        cause = " ".join(str(error).split())
        message = f"{name} could not be fetched or read ({cause})"
        if folder is not None:
            message += (
                f". Put its files into {folder}/, or start with data that needs no download: "
                "python train.py -c digits.yaml"
            )
        raise DataError(message) from error


def _dataset_in_traceback(error: BaseException) -> Dataset | None:
    """Return the torchvision dataset in whose code an error arose, if it did."""
    frame = error.__traceback__
    while frame is not None:
        thing = frame.tb_frame.f_locals.get("self")
        if isinstance(thing, Dataset) and type(thing).__module__.startswith("torchvision."):
            return thing
        frame = frame.tb_next
    return None
