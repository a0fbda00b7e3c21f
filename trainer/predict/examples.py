"""A trained model to call, and data of the kind that it takes."""

import logging

import torch
from torch import nn

from base import BaseDataLoader
from base.config.schema import Config
from base.errors import ConfigError, DataError
from trainer.data import Fitted, build_data, build_test_data, build_transforms
from trainer.trainer import Trainer

log = logging.getLogger("train")


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
