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
    config: Config, device: torch.device, *, state: Mapping[str, Any] | None = None
) -> Trainer:
    """Build every part of a config, and the trainer of them; `state` is what to continue from.

    Raises:
        ConfigError: a class refuses its args.
        CheckpointError, DataError: data or weights are missing, damaged, or other than the state's.
    """
    _make_reproducible(config)
    decided = state["decided"] if state else {}
    loaders = build_data(config, device, **decided)
    trainer = _assemble(config, device, *loaders, load_weights=state is None)
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
    _make_reproducible(config)
    loader = build_loader(config, device, state.get("data"))
    trainer = _assemble(config, device, loader, loader, load_weights=False)
    trainer.load_model(state)
    return trainer


def _make_reproducible(config: Config) -> None:
    set_deterministic(config.trainer.deterministic)
    seed_everything(config.seed)


def _assemble(
    config: Config,
    device: torch.device,
    data_loader: BaseDataLoader,
    valid_data_loader: BaseDataLoader | None,
    *,
    load_weights: bool,
) -> Trainer:
    model = parts.build_model(config, device, load_weights=load_weights)
    loss = parts.build_loss(config, device)
    optimizer = parts.build_optimizer(config, model, loss)
    trainer = parts.build_part(
        config, ("trainer",), config.trainer, TRAINERS,
        model=model, loss=loss,
        metrics=parts.build_metrics(config),
        optimizer=optimizer,
        lr_scheduler=parts.build_lr_scheduler(config, optimizer, data_loader),
        data_loader=data_loader, valid_data_loader=valid_data_loader,
        callbacks=parts.build_callbacks(config),
        config=config, device=device,
    )  # fmt: skip
    seed_everything(derive_seed(config.seed, distributed.rank()))  # dropout differs between ranks
    return trainer
