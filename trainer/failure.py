"""Explain what ends a step: a diverged loss, whose step is kept, no memory left, a dead worker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from base.base_data_loader import worker_error
from base.base_trainer import BaseTrainer
from base.checkpoint.checkpoints import write_checkpoint
from base.errors import CheckpointError, DivergedError, OutOfMemoryError, WriteError
from base.runtime.device import to_device

FAILURE = "failure.pth"


@contextmanager
def translate_runtime_errors(trainer: BaseTrainer) -> Iterator[None]:
    """Turn torch's errors of a step into the user's, and keep the step of a diverged loss.

    Raises:
        DivergedError: as it came, with the file that keeps the step, unless other processes are
            still waiting for its gradients.
        OutOfMemoryError: the device or the machine has no memory left.
        DataError: a worker of the data loader was killed or hangs.
    """
    try:
        yield
    except DivergedError as error:
        if trainer.checkpoints is None or not trainer.is_alone:
            raise
        raise DivergedError(f"{error}\n{_keep_step(trainer)}") from error
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


def _keep_step(trainer: BaseTrainer) -> str:
    """Write the weights before the step, with its batch, and return what to tell of it.

    Of an accelerator's generator it keeps the state after the forward pass.
    """
    if trainer.guard.is_deferred and int(trainer.guard.bad_step) != trainer.step + 1:
        return "its batch is gone; optimizer.args.fused=false looks at every loss at once"
    path: Path = trainer.checkpoints.folder.parent / FAILURE
    state = trainer.state_dict()
    state["rng"][0]["torch"] = trainer.rng_before
    batch = to_device(trainer.current_batch, torch.device("cpu"))
    try:
        try:
            write_checkpoint(path, state | {"failed_batch": batch})
        except CheckpointError:  # a batch that holds more than plain data
            write_checkpoint(path, state)
    except WriteError as error:
        return f"its state and batch are not kept: {error}"
    return f"the state and the batch of this step: {path}"
