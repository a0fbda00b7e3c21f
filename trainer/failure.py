"""Keeps the step at which a run failed, and runs it again to find where it went wrong."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from base.base_data_loader import worker_error
from base.base_trainer import BaseTrainer
from base.checkpoint.checkpoints import read_checkpoint, serialize
from base.checkpoint.files import write_atomic
from base.errors import CheckpointError, DivergedError, OutOfMemoryError
from base.runtime.device import set_rng_state, to_device
from logger import RunLogger
from trainer.batches import tensors_of

FAILURE = "failure.pth"


@contextmanager
def translate_runtime_errors(trainer: BaseTrainer) -> Iterator[None]:
    """Keep a diverging step in the run directory, and say what to lower when memory runs out.

    With several processes the step is not kept: the others are still waiting for its gradients.

    Raises:
        DivergedError: as it came, with the command that replays the step.
        OutOfMemoryError: the device or the machine has no memory left.
        DataError: a worker of the data loader was killed or hangs.
    """
    try:
        yield
    except DivergedError as error:
        if trainer.checkpoints is None or not trainer.is_alone:
            raise
        if trainer.guard.is_deferred and int(trainer.guard.bad_step) != trainer.step + 1:
            raise DivergedError(
                f"{error}\nits batch is gone; to keep it for --replay, look at every loss at once: "
                "optimizer.args.fused=false"
            ) from error
        path = _keep_step(trainer, trainer.checkpoints.folder.parent / FAILURE)
        raise DivergedError(f"{error}\nlook closer: python train.py --replay {path}") from error
    except RuntimeError as error:
        if dead := worker_error(error):
            raise dead from error
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        size = trainer.data_loader.per_rank_batch_size
        raise OutOfMemoryError(
            f"out of memory on {trainer.device} in epoch {trainer.epoch + 1}, step "
            f"{trainer.step + 1}: lower data_loader.args.batch_size, now {size}, and raise "
            "trainer.accumulate instead, or set trainer.precision to bf16"
        ) from error


def _keep_step(trainer: BaseTrainer, path: Path) -> Path:
    batch = to_device(trainer.current_batch, torch.device("cpu"))
    state = trainer.state_dict()
    state["rng"][0]["torch"] = trainer.rng_before
    try:
        content = serialize(state | {"failed_batch": batch})
    except CheckpointError:  # a batch that holds more than plain data
        content = serialize(state)
    write_atomic(path, content)
    return path


def read_failure(path: Path) -> dict[str, Any]:
    """Return the state that a diverged run kept.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
    """
    state = read_checkpoint(path)
    if "failed_batch" not in state:
        raise CheckpointError(f"{path}: holds no failed batch: not kept by a run that diverged")
    return state


def replay(trainer: BaseTrainer, state: dict[str, Any]) -> str:
    """Run a kept step again and return where the first value that is not finite arose.

    Raises:
        CheckpointError: the state belongs to another model.
    """
    trainer.begin(RunLogger(None))  # callbacks may change the batch
    trainer.load_model(state)
    trainer.epoch, trainer.step, trainer.batch = state["epoch"], state["step"], state["batch"]
    for name, parameter in trainer.network.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"{name} is not finite before the step: an earlier gradient was not"
    set_rng_state(state["rng"][0], trainer.device)
    batch = trainer.prepare_batch(state["failed_batch"])
    found: list[str] = []
    for number, tensor in enumerate(tensors_of(batch)):
        _note(found, tensor, f"tensor {number} of the batch")
    for name, module in trainer.network.named_modules():
        module.register_forward_hook(partial(_note_output, found, name or "the model"))
    try:
        with warnings.catch_warnings(action="ignore"), torch.autograd.detect_anomaly():
            trainer.backward(batch)
    except DivergedError as error:
        found.append(f"the loss: {str(error).splitlines()[0]}")
    except RuntimeError as error:  # anomaly detection's word
        found.append(f"the backward pass: {error}")
    for name, parameter in trainer.network.named_parameters():
        if parameter.grad is not None:
            _note(found, parameter.grad, f"the gradient of {name}")
    return f"first not finite: {found[0]}" if found else "everything is finite in this step"


def _note_output(found: list[str], name: str, module: nn.Module, args: Any, output: Any) -> None:
    for tensor in tensors_of(output):
        _note(found, tensor, f"the output of {name} ({type(module).__name__})")


def _note(found: list[str], tensor: Tensor, what: str) -> None:
    bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
    if bad:
        found.append(f"{what}, {bad:,} of {tensor.numel():,} values")
