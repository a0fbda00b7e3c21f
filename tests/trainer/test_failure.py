"""What ends a step is said in the user's terms, and the step of a diverged loss is kept."""

import pytest
import torch
from torch import nn

from base.checkpoint.checkpoints import Checkpoints, read_checkpoint
from base.errors import DataError, DivergedError, OutOfMemoryError
from logger import RunLogger
from trainer import Trainer


class Spoiled(Trainer):
    """Its loss is infinite from the third batch on."""

    def train_step(self, batch):
        loss = super().train_step(batch)
        return loss * float("inf") if self.batch == 2 else loss


def test_the_step_of_a_diverged_loss_is_kept(make_trainer, points, tmp_path):
    trainer = make_trainer(nn.Linear(5, 3), points, trainer_class=Spoiled)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DivergedError, match=r"loss is inf in epoch 1, step 3") as caught:
        trainer.fit(logger=RunLogger(None), checkpoints=Checkpoints(tmp_path / "checkpoints"))
    path = tmp_path / "failure.pth"
    assert str(caught.value).endswith(f"the state and the batch of this step: {path}")
    state = read_checkpoint(path)
    assert (state["step"], state["batch"]) == (2, 2)
    assert torch.equal(state["model"]["weight"], trainer.network.weight)
    assert torch.equal(state["failed_batch"][0], points[0][8:12])


def test_a_batch_that_is_no_plain_data_is_not_kept_but_the_state_is(make_trainer, points, tmp_path):
    class Marked(Spoiled):
        def prepare_batch(self, batch, **options):
            batch = super().prepare_batch(batch, **options)
            self.current_batch = [*batch, object()]
            return batch

    trainer = make_trainer(nn.Linear(5, 3), points, trainer_class=Marked)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DivergedError):
        trainer.fit(logger=RunLogger(None), checkpoints=Checkpoints(tmp_path / "checkpoints"))
    state = read_checkpoint(tmp_path / "failure.pth")
    assert "failed_batch" not in state
    assert state["step"] == 2


def test_without_a_run_nothing_is_kept(make_trainer, points, fit):
    with pytest.raises(DivergedError) as caught:
        fit(make_trainer(nn.Linear(5, 3), points, trainer_class=Spoiled))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (torch.OutOfMemoryError("CUDA"), OutOfMemoryError, "batch_size, now 4, and raise"),
        (RuntimeError("can't allocate memory: 9"), OutOfMemoryError, "in epoch 1, step 1: lower"),
        (RuntimeError("DataLoader worker (pid 7) is killed"), DataError, "worker"),
        (
            RuntimeError("shapes do not fit"),
            RuntimeError,
            "^shapes do not fit$",
        ),
    ],
)
def test_errors_of_torch_are_translated_where_a_user_can_mend_them(
    make_trainer, points, fit, error, expected, message
):
    class Failing(Trainer):
        def train_step(self, batch):
            raise error

    with pytest.raises(expected, match=message) as caught:
        fit(make_trainer(nn.Linear(5, 3), points, trainer_class=Failing))
    assert type(caught.value) is expected
