"""The weights after training are those of a loop written by hand, bit for bit."""

import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score

from base import Callback
from base.checkpoint.checkpoints import Checkpoints
from base.errors import DivergedError, UsageError
from logger import RunLogger
from trainer.batches import input_and_target

BATCH = 4


def network(*, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)
    )


def batches(points):
    return list(zip(*(part.split(BATCH) for part in points), strict=True))


def assert_same(model: nn.Module, expected: nn.Module) -> None:
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_plain_epoch_is_forward_backward_step(make_trainer, fit, points):
    model, by_hand = network(dropout=0.5), network(dropout=0.5)
    torch.manual_seed(5)
    fit(make_trainer(model, points, epochs=2))

    torch.manual_seed(5)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for _ in range(2):
        for inputs, target in batches(points):
            optimizer.zero_grad()
            F.cross_entropy(by_hand(inputs), target).backward()
            optimizer.step()
    assert_same(model, by_hand)


def test_accumulation_divides_by_the_size_of_the_group_also_of_the_last_shorter_one(
    make_trainer, fit, points
):
    model, by_hand = network(), network()
    trainer = make_trainer(model, points, accumulate=3)
    fit(trainer)

    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    all_batches = batches(points)
    for group in (all_batches[:3], all_batches[3:6], all_batches[6:]):
        for inputs, target in group:
            (F.cross_entropy(by_hand(inputs), target) / len(group)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same(model, by_hand)
    assert trainer.step == 3


def test_clipping_scales_the_gradient_of_all_parameters(make_trainer, fit, points):
    model, by_hand = network(), network()
    fit(make_trainer(model, points, clip_grad_norm=0.05))

    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for inputs, target in batches(points):
        optimizer.zero_grad()
        F.cross_entropy(by_hand(inputs), target).backward()
        norm = nn.utils.clip_grad_norm_(by_hand.parameters(), 0.05)
        assert norm > 0.05  # or the test would not show it
        optimizer.step()
    assert_same(model, by_hand)


def test_the_average_follows_the_weights_after_every_step(make_trainer, fit, points):
    model, by_hand = network(), network()
    trainer = make_trainer(model, points, ema_decay=0.7, accumulate=2)
    fit(trainer)

    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    average = None
    all_batches = batches(points)
    for group in (all_batches[:2], all_batches[2:4], all_batches[4:6], all_batches[6:]):
        for inputs, target in group:
            (F.cross_entropy(by_hand(inputs), target) / len(group)).backward()
        optimizer.step()
        optimizer.zero_grad()
        weights = [p.detach().clone() for p in by_hand.parameters()]
        average = weights if average is None else list(map(follow, average, weights))
    for own, expected in zip(trainer.ema.module.parameters(), average, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-6, atol=1e-7)
    assert_same(model, by_hand)


def follow(average: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return 0.7 * average + 0.3 * weights


def test_the_averaged_weights_are_those_that_are_validated(make_trainer, fit, points):
    trainer = make_trainer(network(), points, valid=points, ema_decay=0.9)
    summary = fit(trainer)
    inputs, target = points
    with torch.no_grad():
        losses = [F.cross_entropy(m.eval()(inputs), target).item() for m in (trainer.ema.module,)]
    assert summary["last"]["val_loss"] == pytest.approx(losses[0], rel=1e-6)
    own = F.cross_entropy(trainer.network.eval()(inputs), target).item()
    assert summary["last"]["val_loss"] != pytest.approx(own, rel=1e-3)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_scheduler_steps_after_every_step_or_every_epoch(make_trainer, fit, points, interval):
    model, by_hand = network(), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    fit(
        make_trainer(
            model, points, optimizer=optimizer, lr_scheduler=scheduler, interval=interval, epochs=4
        )
    )

    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for _ in range(4):
        for inputs, target in batches(points):
            optimizer.zero_grad()
            F.cross_entropy(by_hand(inputs), target).backward()
            optimizer.step()
            if interval == "step":
                scheduler.step()
        if interval == "epoch":
            scheduler.step()
    assert_same(model, by_hand)


@pytest.mark.parametrize(("mode", "falls"), [("min", 0), ("max", 2)])
def test_reduce_on_plateau_follows_the_monitored_column(make_trainer, fit, points, mode, falls):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=0
    )
    trainer = make_trainer(
        model, points, optimizer=optimizer, lr_scheduler=scheduler, epochs=3, monitor=f"{mode} loss"
    )
    fit(trainer)  # the loss falls in every epoch: good for "min", bad for "max"
    assert optimizer.param_groups[0]["lr"] == 1e-4 * 0.5**falls


def test_one_cycle_ends_with_the_last_step(load, start, tree):
    tree["trainer"] |= {"accumulate": 4}  # 9 batches in groups of 4, 4 and 1: 9 steps in all
    run = start(tree)
    state = torch.load(run / "checkpoints" / "checkpoint-epoch3.pth", weights_only=True)
    assert state["lr_scheduler"]["total_steps"] == state["lr_scheduler"]["last_epoch"] == 9


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(make_trainer, fit, points, precision):
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            output = super().forward(x)
            seen.append(output.dtype)
            return output

    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), Spy(8, 3))
    trainer = make_trainer(
        model, points, valid=points, precision=precision, epochs=8, clip_grad_norm=1.0, accumulate=2
    )
    trainer.optimizer.param_groups[0]["lr"] = 0.3
    before = trainer.evaluate()["loss"]
    assert fit(trainer)["last"]["val_loss"] < 0.8 * before
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert trainer.scaler.is_enabled() == (precision == "fp16")


def test_lbfgs_is_given_its_closure_and_metrics_count_once(make_trainer, fit, points):
    model, by_hand = nn.Linear(5, 3), nn.Linear(5, 3)
    by_hand.load_state_dict(model.state_dict())
    options = {"lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"}
    counts = []
    trainer = make_trainer(
        model,
        points,
        optimizer=torch.optim.LBFGS(model.parameters(), **options),
        metrics={"count": lambda output, target: counts.append(len(target)) or 1.0},
    )
    summary = fit(trainer)

    optimizer = torch.optim.LBFGS(by_hand.parameters(), **options)
    first_losses = []
    for inputs, target in batches(points):

        def closure(inputs=inputs, target=target):
            optimizer.zero_grad()
            loss = F.cross_entropy(by_hand(inputs), target)
            loss.backward()
            return loss

        first_losses.append(optimizer.step(closure).item() * len(target))
    assert_same(model, by_hand)
    assert counts == [len(target) for _, target in batches(points)]
    assert summary["last"]["loss"] == pytest.approx(sum(first_losses) / 26, rel=1e-6)


def test_averages_are_weighted_by_samples_over_a_short_last_batch(make_trainer, fit, points):
    model = network().requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = make_trainer(model.eval(), points, valid=points, optimizer=optimizer)
    row = trainer.evaluate()
    losses = [F.cross_entropy(model(x), y).item() * len(y) for x, y in batches(points)]
    assert row["loss"] == sum(losses) / 26


def test_averages_and_seconds_are_those_of_one_epoch(make_trainer, fit, points, monkeypatch):
    ticks = []
    monkeypatch.setattr("time.perf_counter", lambda: float(len(ticks)))
    trainer = make_trainer(
        network(),
        points,
        metrics={"done": lambda output, target: ticks.append(1) or trainer.epoch},
        epochs=3,
    )
    row = fit(trainer)["last"]
    assert row["done"] == 2
    assert row["seconds"] == 7  # a tick for each of its steps
    assert row["samples_per_second"] == 26 / 7


def test_len_epoch_streams_through_the_data(make_trainer, fit):
    seen = []

    class Recorder(nn.Linear):
        def forward(self, x):
            seen.append(x[:, 0].tolist())
            return super().forward(x)

    inputs = torch.arange(10.0)[:, None]
    trainer = make_trainer(
        Recorder(1, 1),
        (inputs, inputs / 10),
        loss=F.mse_loss,
        optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1),
        len_epoch=2,
        epochs=3,
        accumulate=2,
    )
    fit(trainer)
    data = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert seen == data * 4  # 3 epochs of 2 steps of 2 batches, four times through three batches
    assert trainer.step == 6


def test_limit_batches_uses_so_many_of_each_loader(make_trainer, fit, points):
    counts = []
    trainer = make_trainer(
        network(),
        points,
        valid=points,
        metrics={"n": lambda output, target: counts.append(output.requires_grad) or 0.0},
        limit_batches=2,
        epochs=2,
    )
    fit(trainer)
    assert trainer.step == 4
    assert counts.count(True) + counts.count(False) == 8


def test_a_batch_norm_with_frozen_weights_keeps_its_statistics(make_trainer, fit, points):
    model = network()
    model[1].requires_grad_(False)
    before = copy.deepcopy(model[1].state_dict())
    fit(make_trainer(model, points, valid=points, epochs=2))
    for name, tensor in before.items():
        assert torch.equal(model[1].state_dict()[name], tensor), name


def test_a_loss_that_is_not_finite_leaves_the_weights_as_they_were(make_trainer, fit, points):
    inputs, target = points
    inputs[9] = math.nan  # in the third batch
    model, by_hand = network(), network()
    trainer = make_trainer(model, (inputs, target))
    with pytest.raises(DivergedError, match=r"loss is nan in epoch 1, step 3; the weights are"):
        fit(trainer)

    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for x, y in batches((inputs, target))[:2]:
        optimizer.zero_grad()
        F.cross_entropy(by_hand(x), y).backward()
        optimizer.step()
    for own, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(own, expected)


def test_a_line_search_that_diverges_leaves_the_weights_as_they_were(make_trainer, fit, points):
    model = nn.Linear(5, 3)
    before = copy.deepcopy(model)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    losses = iter([1.0, 1.0, math.inf])

    def loss(output, target):
        return F.cross_entropy(output, target) * next(losses)

    with pytest.raises(DivergedError, match="loss is inf in epoch 1, step 1"):
        fit(make_trainer(model, points, loss=loss, optimizer=optimizer))
    assert_same(model, before)


def test_a_model_that_is_not_finite_is_never_saved(make_trainer, points, tmp_path):
    model = nn.Linear(5, 3)
    trainer = make_trainer(model, points, epochs=2)
    trainer.callbacks = [Breaking()]
    with pytest.raises(DivergedError, match="bias is not finite in epoch 2, step 14; the last"):
        trainer.fit(logger=RunLogger(None), checkpoints=Checkpoints(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-epoch1.pth"]


class Breaking(Callback):
    """Spoils a weight after the last look at the loss."""

    def on_step(self, trainer):
        if trainer.step == 14:
            trainer.network.bias.data[1] = math.inf


def test_validation_moves_no_generator(make_trainer, points):
    def draw(output, target):
        return torch.rand(()) + random.random() + np.random.rand()

    trainer = make_trainer(network(), points, valid=points, metrics={"draw": draw})
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    trainer.evaluate()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


def test_validation_leaves_no_tensor_behind_that_training_cannot_use(make_trainer, fit, points):
    class Caching(nn.Linear):
        scale = None

        def forward(self, x):
            if self.scale is None:
                self.scale = torch.ones(3) * 2
            return super().forward(x) * self.scale

    trainer = make_trainer(Caching(5, 3), points, valid=points)
    trainer.evaluate()
    fit(trainer)
    assert trainer.step == 7


def test_a_metric_that_is_no_scalar_is_named_in_the_first_validation_batch(make_trainer, points):
    metric = MulticlassF1Score(num_classes=3, average="none")
    seen = []
    trainer = make_trainer(
        network(),
        points,
        valid=points,
        metrics={"f1": metric, "n": lambda output, target: seen.append(1) or 0.0},
    )
    with pytest.raises(UsageError, match=r"f1 gives .*shape \(3,\), expected a scalar"):
        trainer.evaluate()
    assert len(seen) == 1


def test_a_metric_that_needs_more_than_a_batch_gets_it(make_trainer, points):
    class Patient(Metric):
        def __init__(self):
            super().__init__()
            self.add_state("count", torch.tensor(0))

        def update(self, output, target):
            self.count += len(target)

        def compute(self):
            if self.count < 5:
                raise ValueError("needs at least five samples")
            return self.count.float()

    trainer = make_trainer(network(), points, valid=points, metrics={"n": Patient()})
    assert trainer.evaluate()["n"] == 26


def test_a_loss_that_is_no_scalar_is_named(make_trainer, fit, points):
    def loss(output, target):
        return F.cross_entropy(output, target, reduction="none")

    with pytest.raises(UsageError, match=r"loss gives .*shape \(4,\), expected a scalar"):
        fit(make_trainer(network(), points, loss=loss))


def test_targets_that_are_text_are_refused():
    with pytest.raises(UsageError, match="the targets are text, such as 'cat'; let the dataset"):
        input_and_target([torch.zeros(2, 5), ("cat", "dog")])


def test_a_batch_that_is_no_pair_is_shown_with_the_way_out(make_trainer, fit, points):
    inputs, target = points
    with pytest.raises(UsageError, match=r"found a list of 3; override train_step\(batch\) in a"):
        fit(make_trainer(network(), (inputs, target, target)))
