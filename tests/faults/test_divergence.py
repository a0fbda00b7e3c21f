"""A loss that is not finite, memory that runs out: the run stops in time and says why."""

import math
from pathlib import Path

import pytest
import torch

import train as train_command
from base.checkpoint.checkpoints import Checkpoints, read_checkpoint
from base.errors import DivergedError, OutOfMemoryError, UserError
from base.registry import LOSSES, MODELS
from trainer.resume import start_from_config

pytestmark = pytest.mark.faults

STEP = 5


class CountingLoss(torch.nn.Module):
    """A loss that becomes `value` at step `STEP`, counted without a state."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.calls = 0

    def forward(self, output, target):
        loss = torch.nn.functional.cross_entropy(output, target)
        self.calls += self.training
        return loss * self.value if self.calls == STEP else loss


class Overflowing(torch.nn.Module):
    """A network whose second layer divides by zero for an input of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(64, 10)
        self.second = torch.nn.LogSoftmax(dim=1)

    def forward(self, x):
        x = self.first(x.flatten(1))
        return self.second(x / (x.detach() * 0))


@pytest.fixture(autouse=True)
def _own_parts(project_root, monkeypatch):
    monkeypatch.chdir(project_root)
    for registry, part in ((LOSSES, CountingLoss), (MODELS, Overflowing)):
        monkeypatch.setattr(registry, "registered", {})
        registry.register()(part)


def run(tmp_path: Path, *changes: str):
    arguments = [f"trainer.save_dir={tmp_path}", "name=fault", "trainer.epochs=1", *changes]
    return train_command.main(*start_from_config(Path("digits.yaml"), arguments, "one"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_before_its_step(tmp_path, value):
    """NaN or infinity in the loss at step k: exit 5 naming epoch and step, the newest checkpoint is
    of step k - 1 and finite, and the kept state has the weights of step k - 1."""
    written = {math.nan: ".nan", math.inf: ".inf", -math.inf: "-.inf"}[value]
    loss = f"loss={{type: CountingLoss, args: {{value: {written}}}}}"
    with pytest.raises(DivergedError, match=f"in epoch 1, step {STEP}") as caught:
        run(tmp_path, loss, "trainer.save_steps=1")
    assert caught.value.exit_code == 5
    assert str(tmp_path / "fault" / "one" / "failure.pth") in str(caught.value)
    state = Checkpoints(tmp_path / "fault" / "one" / "checkpoints").load_newest()[1]
    assert state["step"] == STEP - 1
    assert all(torch.isfinite(weight).all() for weight in state["model"].values())
    kept = read_checkpoint(tmp_path / "fault" / "one" / "failure.pth")
    trained = [name for name in state["model"] if name.endswith(("weight", "bias"))]
    assert all(torch.equal(kept["model"][name], state["model"][name]) for name in trained)
    images, targets = kept["failed_batch"]
    assert images.shape == (64, 1, 8, 8)
    assert targets.shape == (64,)
    assert "CountingLoss" in kept["config"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_no_memory_left_says_what_to_lower(tmp_path, monkeypatch, error):
    """An out-of-memory error of the device or the machine: exit 5, one line, what to lower."""

    def fail(self, x):
        raise error

    monkeypatch.setattr(Overflowing, "forward", fail)
    monkeypatch.setattr("logger.run_logger.RunLogger.log_model", lambda *args: None)
    with pytest.raises(OutOfMemoryError) as caught:
        run(tmp_path, "model=Overflowing")
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith("out of memory on cpu in epoch 1, step 1: lower ")
    assert "batch_size, now 64" in str(caught.value)


def test_a_model_that_is_not_finite_is_never_saved(tmp_path):
    """A finite loss whose gradient is not: the run ends with exit 5 and every checkpoint there is
    finite."""
    with pytest.raises(UserError) as caught:
        run(tmp_path, "optimizer={type: SGD, args: {lr: 1.0e+38}}", "lr_scheduler=null")
    assert caught.value.exit_code == 5
    for path in (tmp_path / "fault" / "one" / "checkpoints").glob("*.pth"):
        state = read_checkpoint(path)
        assert all(torch.isfinite(weight).all() for weight in state["model"].values())
