"""Put all the parts that a config names together: the trainer of a run, or of a trained model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from base import BaseDataLoader
from base.config.schema import Config
from base.data.sample_rng import derive_seed
from base.registry import TRAINERS
from base.runtime import distributed
from base.runtime.device import seed_everything, set_deterministic
from trainer import parts
from trainer.data import Fitted, build_data, build_test_data
from trainer.trainer import Trainer


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
    schedule = parts.build_lr_scheduler(config, optimizer, data_loader) if trains else None
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
