"""Run a kept step again and name the first tensor that is not finite."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base.checkpoint.checkpoints import read_checkpoint
from base.errors import CheckpointError, DivergedError
from base.runtime.device import set_rng_state, tensors_of
from logger import RunLogger
from trainer.trainer import Trainer


def read_failure(path: Path) -> dict[str, Any]:
    """Return the state that a diverged run kept.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
    """
    state = read_checkpoint(path)
    if "failed_batch" not in state:
        raise CheckpointError(f"{path}: holds no failed batch: not kept by a run that diverged")
    return state


def replay(trainer: Trainer, state: dict[str, Any]) -> str:
    """Run a kept step again and return where the first value that is not finite arose.

    Raises:
        CheckpointError: the state belongs to another model.
    """
    trainer.begin(RunLogger(None))  # callbacks may change the batch
    trainer.load_model(state)
    trainer.epoch, trainer.step, trainer.batch = state["epoch"], state["step"], state["batch"]
    found: list[str] = []
    for name, parameter in trainer.network.named_parameters():
        _note(found, f"{name} before the step", parameter)
    set_rng_state(state["rng"][0], trainer.device)
    batch = trainer.prepare_batch(state["failed_batch"])
    _note(found, "the batch", batch)
    for name, module in trainer.network.named_modules():
        what = f"the output of {name or 'the model'} ({type(module).__name__})"
        module.register_forward_hook(partial(_note_output, found, what))
    try:
        with warnings.catch_warnings(action="ignore"), torch.autograd.detect_anomaly():
            trainer.backward(batch)
    except DivergedError as error:
        found.append(f"the loss: {str(error).splitlines()[0]}")
    except RuntimeError as error:  # raised by anomaly detection
        found.append(f"the backward pass: {error}")
    for name, parameter in trainer.network.named_parameters():
        _note(found, f"the gradient of {name}", parameter.grad)
    return f"first not finite: {found[0]}" if found else "everything is finite in this step"


def _note_output(found: list[str], what: str, module: nn.Module, args: Any, output: Any) -> None:
    _note(found, what, output)


def _note(found: list[str], what: str, nest: Any) -> None:
    for tensor in tensors_of(nest):
        if num_bad := int((~tensor.isfinite()).sum()):
            found.append(f"{what}, {num_bad:,} of {tensor.numel():,} values")
