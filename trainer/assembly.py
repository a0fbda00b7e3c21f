"""Put all the parts that a config names together: the trainer of a run, or of a trained model."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from base import BaseDataLoader
from base.config.schema import Config
from base.data.sample_rng import derive_seed
from base.errors import ConfigError, DataError, UsageError
from base.registry import TRAINERS
from base.runtime import distributed
from base.runtime.device import seed_everything, set_deterministic
from trainer import parts
from trainer.data import Fitted, build_data, build_test_data, build_transforms
from trainer.lr_scheduler import build_lr_scheduler
from trainer.trainer import Trainer

log = logging.getLogger("train")


def build_trainer(
    config: Config,
    device: torch.device,
    *,
    state: Mapping[str, Any] | None = None,
    evaluate_on: Callable[[], BaseDataLoader] | None = None,
) -> Trainer:
    """Build every part of a config, and the trainer of them.

    `state` is the checkpoint to continue from; `evaluate_on` builds the only data there is where
    nothing is trained.

    Raises:
        ConfigError: a class refuses its args.
        CheckpointError, DataError: data or weights are missing, damaged, or other than the state's.
    """
    set_deterministic(config.trainer.deterministic)
    seed_everything(config.seed)
    trains = evaluate_on is None
    decided = state["decided"] if state else {}
    loaders = build_data(config, device, **decided) if trains else (evaluate_on(),) * 2
    data_loader, valid_data_loader = loaders
    model = parts.build_model(config, device, load_weights=trains and state is None)
    loss = parts.build_loss(config, device)
    optimizer = parts.build_optimizer(config, model, loss)
    schedule = build_lr_scheduler(config, optimizer, data_loader) if trains else None
    trainer = parts.build_part(
        config, ("trainer",), config.trainer, TRAINERS,
        model=model, loss=loss,
        metrics=parts.build_metrics(config),
        optimizer=optimizer, lr_scheduler=schedule,
        data_loader=data_loader, valid_data_loader=valid_data_loader,
        callbacks=parts.build_callbacks(config) if trains else [],
        config=config, device=device,
    )  # fmt: skip
    seed_everything(derive_seed(config.seed, distributed.rank()))  # dropout differs between ranks
    if state is not None:
        trainer.load_state_dict(state)
    return trainer


def load_for_evaluation(
    config: Config,
    state: Mapping[str, Any],
    device: torch.device,
    *,
    build_loader: Callable[[Config, torch.device, Fitted], BaseDataLoader] = build_test_data,
) -> Trainer:
    """Return the trainer that a checkpoint was made by, to evaluate on the data of a loader.

    Raises:
        CheckpointError: the checkpoint belongs to another model.
        ConfigError, DataError: there is no data, or it cannot be read.
    """
    learned = state.get("data")
    trainer = build_trainer(
        config, device, evaluate_on=lambda: build_loader(config, device, learned)
    )
    trainer.load_model(state)
    return trainer


def evaluated_model(trainer: Trainer) -> nn.Module:
    """Return what is evaluated of a trainer, the averaged weights if there are any."""
    return (trainer.ema.module if trainer.ema else trainer.network).eval()


def example_data(config: Config, device: torch.device, fitted: Fitted = None) -> BaseDataLoader:
    """Return the test data, else validation data, else training data, as test.py would read them.

    Raises:
        DataError: there is none of them.
    """
    few = config.data_loader.model_copy(update={"in_memory": False})  # a few samples are read
    config = config.model_copy(update={"data_loader": few})
    try:
        return build_test_data(config, device, fitted)
    except (ConfigError, DataError) as error:
        log.info("no test data, so others are looked at (%s)", error)
    loader, valid_loader = build_data(config, device, fitted)
    loader = valid_loader or loader
    loader.dataset.set_transforms(build_transforms(config, "test"))
    return loader


def example_batch(loader: BaseDataLoader, count: int) -> tuple[Any, Any]:
    """Return the input, a tensor or a nest of them, and the target of the first samples.

    There may be fewer than `count` samples; the target is None where a batch holds something else.

    Raises:
        UsageError: nothing says what of a batch is the model's input.
    """
    positions = np.arange(count) % loader.num_samples
    batch = loader.batch_at(positions)
    if not isinstance(batch, (tuple, list)):
        name = type(batch).__name__
        raise UsageError(f"the model's input must come first of a batch; these are of type {name}")
    return batch[0], batch[1] if len(batch) == 2 else None
