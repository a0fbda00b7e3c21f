"""What a project changes: the step, the loss, several optimizers, callbacks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base import Callback
from base.errors import CheckpointError, DivergedError, UsageError
from trainer import Trainer


class TwoParts(Trainer):
    """A loss of two components."""

    def train_step(self, batch):
        inputs, target = batch
        output = self.model(inputs)
        self.update_metrics(output, target)
        return {"fit": F.cross_entropy(output, target), "size": 0.1 * output.pow(2).mean()}


def test_components_of_a_loss_are_summed_and_logged_beside_the_sum(make_trainer, fit, points):
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    trainer = make_trainer(model, points, valid=points, trainer_class=TwoParts)
    row = fit(trainer)["last"]
    assert row["loss"] == pytest.approx(row["fit"] + row["size"], rel=1e-6)
    assert row["val_loss"] == pytest.approx(row["val_fit"] + row["val_size"], rel=1e-6)
    assert row["fit"] > 0
    assert row["size"] > 0

    torch.manual_seed(0)
    by_hand = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for inputs, target in zip(*(part.split(4) for part in points), strict=True):
        optimizer.zero_grad()
        output = by_hand(inputs)
        (F.cross_entropy(output, target) + 0.1 * output.pow(2).mean()).backward()
        optimizer.step()
    assert torch.equal(model.weight, by_hand.weight)


def test_a_component_that_is_not_finite_is_named(make_trainer, fit, points):
    class Diverging(TwoParts):
        def train_step(self, batch):
            return super().train_step(batch) | {"prior": torch.tensor(float("inf"))}

    with pytest.raises(DivergedError, match="prior is inf in epoch 1, step 1"):
        fit(make_trainer(nn.Linear(5, 3), points, trainer_class=Diverging))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (None, "returned nothing, expected a loss"),
        ({"loss": 1.0, "kl": 1.0}, "a part of the loss is called"),
    ],
)
def test_a_step_that_returns_no_usable_loss_is_told_so(make_trainer, fit, points, losses, message):
    class Wrong(Trainer):
        def train_step(self, batch):
            return losses

    with pytest.raises(UsageError, match=message):
        fit(make_trainer(nn.Linear(5, 3), points, trainer_class=Wrong))


class Weighted(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target) / self.log_variance.exp() + self.log_variance


def weighted_trainer(make_trainer, points):
    torch.manual_seed(0)
    model, loss = nn.Linear(5, 3), Weighted()
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.1)
    return make_trainer(model, points, loss=loss, optimizer=optimizer)


def test_a_loss_with_parameters_is_trained_and_saved(make_trainer, fit, points):
    trainer = weighted_trainer(make_trainer, points)
    fit(trainer)
    assert trainer.loss.log_variance.item() != 0

    other = weighted_trainer(make_trainer, points)
    other.load_state_dict(trainer.state_dict())
    assert torch.equal(other.loss.log_variance, trainer.loss.log_variance)


class Gan(Trainer):
    """Two networks, two optimizers, noise, and nothing of the stock step."""

    stateful = ("critic", "critic_optimizer", "critic_scheduler")

    def __init__(self, model: nn.Module, **parts) -> None:
        super().__init__(model, **parts)
        self.critic = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=0.02)
        self.critic_scheduler = torch.optim.lr_scheduler.StepLR(self.critic_optimizer, 2)

    def train_batch(self, batch):
        real = batch[0]
        fake = self.model(torch.randn(len(real), 3))
        critic_loss = self.critic(fake.detach()).mean() - self.critic(real).mean()
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()
        self.critic_scheduler.step()
        model_loss = -self.critic(fake).mean()
        self.optimizer.zero_grad()
        model_loss.backward()
        self.optimizer.step()
        self.log_losses({"critic": critic_loss, "generator": model_loss})


def gan(make_trainer, points, **settings) -> Gan:
    torch.manual_seed(2)
    return make_trainer(
        nn.Linear(3, 5), points, trainer_class=Gan, epochs=2, ema_decay=0.5, **settings
    )


def test_several_optimizers_are_continued_exactly(make_trainer, fit, points):
    whole = gan(make_trainer, points)
    fit(whole)

    first = gan(make_trainer, points)
    saved = []

    class Snapshot(Callback):
        def on_step(self, trainer):
            if trainer.step == 9:
                saved.append(trainer.state_dict())
                raise KeyboardInterrupt

    first.callbacks = [Snapshot()]
    with pytest.raises(KeyboardInterrupt):
        fit(first)
    saved[0]["callbacks"] = []

    second = gan(make_trainer, points)
    torch.manual_seed(77)
    second.load_state_dict(saved[0])
    fit(second)
    for one, other in [(whole.network, second.network), (whole.critic, second.critic)]:
        for name, tensor in one.state_dict().items():
            assert torch.equal(other.state_dict()[name], tensor), name
    for name in ("loss", "critic", "generator"):
        assert whole.row[name] == second.row[name]
    average = second.ema.module.weight
    assert torch.equal(average, whole.ema.module.weight)
    assert not torch.equal(average, second.network.weight)


def test_a_state_lacks_what_a_changed_trainer_wants_to_restore(make_trainer, points):
    state = gan(make_trainer, points).state_dict()
    del state["stateful"]["critic_scheduler"]
    with pytest.raises(CheckpointError, match="the checkpoint holds no critic_scheduler"):
        gan(make_trainer, points).load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda model: nn.Linear(5, 4),
            r"the model: .* size mismatch for weight: .* torch\.Size\(\[3, 5\]\).*\[4, 5\]",
        ),
        (
            lambda model: nn.Sequential(model),
            r'the model: .* Missing key\(s\) .* "0.weight", "0.bias"',
        ),
    ],
)
def test_a_state_of_another_model_is_refused_with_its_first_differences(
    make_trainer, points, change, message
):
    state = make_trainer(nn.Linear(5, 3), points).state_dict()
    trainer = make_trainer(change(nn.Linear(5, 3)), points)
    with pytest.raises(CheckpointError, match=message) as caught:
        trainer.load_state_dict(state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make_optimizer", "message"),
    [
        (torch.optim.SGD, "the optimizer: unknown options amsgrad, betas, "),
        (
            lambda p: torch.optim.Adam([{"params": [w]} for w in p]),
            "the optimizer: .* different number of parameter groups",
        ),
        (
            lambda p: torch.optim.Adam(list(p)[:1]),
            "the optimizer: .* group that doesn't match the size",
        ),
    ],
)
def test_a_state_of_another_optimizer_is_refused(
    make_trainer, fit, points, make_optimizer, message
):
    model = nn.Linear(5, 3)
    first = make_trainer(model, points, optimizer=torch.optim.Adam(model.parameters()))
    fit(first)
    second = make_trainer(model, points, optimizer=make_optimizer(model.parameters()))
    with pytest.raises(CheckpointError, match=message):
        second.load_state_dict(first.state_dict())


def test_a_restored_state_is_a_copy(make_trainer, fit, points):
    first = weighted_trainer(make_trainer, points)
    fit(first)
    state = first.state_dict()
    before = state["optimizer"]["state"][0]["exp_avg"].clone()
    second = weighted_trainer(make_trainer, points)
    second.load_state_dict(state)
    second.epoch = 0
    fit(second)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], before)


# --- callbacks and the order of an epoch --------------------------------------------------------


class Diary(Callback):
    """Writes down every moment."""

    def __init__(self) -> None:
        self.moments: list[str] = []

    def on_fit_start(self, trainer):
        self.moments.append("fit start")

    def on_epoch_start(self, trainer):
        self.moments.append(f"epoch {trainer.epoch + 1} start")

    def on_step(self, trainer):
        self.moments.append(f"step {trainer.step}")

    def on_epoch_end(self, trainer, row):
        self.moments.append(f"epoch {row['epoch']} end, lr {trainer.learning_rate}")

    def on_fit_end(self, trainer):
        self.moments.append("fit end")


class Listener:
    """A logger that writes into a diary."""

    def __init__(self, diary: Diary) -> None:
        self.diary = diary

    def log_step(self, values, step):
        self.diary.moments.append(f"log step {step}")

    def log_epoch(self, row, *, num_epochs, waiting):
        self.diary.moments.append(f"log epoch {row['epoch']} of {num_epochs}")

    def flush(self):
        self.diary.moments.append("save")


def test_an_epoch_trains_evaluates_logs_schedules_calls_back_and_saves(make_trainer, points):
    model, diary = nn.Linear(5, 3), Diary()

    class Evaluating(Trainer):
        def evaluate(self):
            diary.moments.append("evaluate")
            return super().evaluate()

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = make_trainer(
        model,
        points,
        valid=points,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
        trainer_class=Evaluating,
        callbacks=(diary,),
        accumulate=4,
        epochs=2,
        log_interval=3,
    )
    trainer.fit(logger=Listener(diary))
    assert diary.moments == [
        "fit start",
        *["epoch 1 start", "step 1", "step 2", "log step 2", "evaluate"],
        *["log epoch 1 of 2", "epoch 1 end, lr 0.5", "save"],
        *["epoch 2 start", "step 3", "log step 3", "step 4", "log step 4", "evaluate"],
        *["log epoch 2 of 2", "epoch 2 end, lr 0.25", "save"],
        "fit end",
    ]


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_so_many_epochs_without_improvement(
    make_trainer, fit, points, patience
):
    losses = iter([1.0, 0.5, 0.5, 0.7, 0.6, 0.4])

    class Scripted(Trainer):
        def evaluate(self):
            return {"loss": next(losses)}

    trainer = make_trainer(
        nn.Linear(5, 3),
        points,
        valid=points,
        trainer_class=Scripted,
        epochs=9,
        monitor="min val_loss",
        early_stop=patience,
    )
    summary = fit(trainer)
    assert summary["stopped_early"]
    assert summary["epochs"] == 2 + patience
    assert summary["best"].items() >= {"epoch": 2, "val_loss": 0.5}.items()
    assert "loss" in summary["best"]


def test_the_interval_of_a_training_curve_averages_the_batches_since_the_last_point(
    make_trainer, points
):
    model = nn.Linear(5, 3).requires_grad_(False)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    logged = {}

    class Curve(Listener):
        def log_step(self, values, step):
            logged[step] = values["loss"]

    def loss(output, target):
        return F.cross_entropy(output, target).requires_grad_()

    trainer = make_trainer(model, points, loss=loss, optimizer=optimizer, log_interval=3)
    trainer.fit(logger=Curve(Diary()))
    losses = [
        F.cross_entropy(model(x), y).item()
        for x, y in zip(*(part.split(4) for part in points), strict=True)
    ]
    assert logged == pytest.approx({3: sum(losses[:3]) / 3, 6: sum(losses[3:6]) / 3, 7: losses[6]})
