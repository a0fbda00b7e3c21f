"""Stochastic weight averaging: the mean it says it is, beside everything else a run has."""

import json
import logging

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

from base.errors import ConfigError, StoppedError, UsageError
from base.registry import MODELS
from base.runtime import distributed
from logger import RunLogger
from trainer.callbacks.averaging import StochasticWeightAveraging
from trainer.parts import load_matching
from trainer.resume import start_from_checkpoint


def read(run, name):
    return torch.load(run / "checkpoints" / name, weights_only=True)


@pytest.fixture
def averaging(tree):
    """A config that averages the epochs 2 and 3 of 3, its schedule stepped after each step."""
    args = {"start": 2, "lr": 0.01, "anneal_epochs": 2}
    tree["callbacks"] = [{"type": "StochasticWeightAveraging", "args": args}, "Interrupter"]
    tree["trainer"] |= {"ema_decay": None, "keep_last": 9}
    return tree


class Watched(StochasticWeightAveraging):
    """Remembers the weights and the rates that each epoch had."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen, self.used = [], []

    def on_epoch_end(self, trainer, row):
        super().on_epoch_end(trainer, row)
        self.seen.append(trainer.network.weight.detach().clone())
        self.used.append(row["lr"])


def test_the_average_is_the_mean_of_the_weights_from_the_start_on(make_trainer, points, fit):
    callback = Watched(3, 0.05)
    trainer = make_trainer(nn.Linear(5, 3), points, valid=points, epochs=5, callbacks=(callback,))
    summary = fit(trainer)
    expected = torch.stack(callback.seen[2:]).mean(dim=0)
    torch.testing.assert_close(callback.average.module.weight, expected)
    assert torch.equal(trainer.network.weight, callback.seen[-1])
    averaged, target = callback.average.module(points[0]), points[1]
    loss = nn.functional.cross_entropy(averaged, target).item()
    assert summary["last"]["swa_val_loss"] == pytest.approx(loss, rel=1e-5)
    assert summary["last"]["val_loss"] != summary["last"]["swa_val_loss"]


@pytest.mark.parametrize("anneal_epochs", [0, 2])
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_the_rates_from_the_start_on_are_those_of_torch(
    make_trainer, points, fit, interval, anneal_epochs
):
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    callback = Watched(3, 0.02, anneal_epochs)
    fit(
        make_trainer(
            model, points, epochs=6, callbacks=(callback,),
            optimizer=optimizer, lr_scheduler=schedule, interval=interval,
        )
    )  # fmt: skip
    # a row tells the last rate of its epoch, of 7 steps
    expected = [0.1 * 0.9**7, 0.1 * 0.9**14] if interval == "step" else [0.1, 0.1 * 0.9]
    before = 0.1 * 0.9 ** (14 if interval == "step" else 2)
    other = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=before)
    theirs = SWALR(other, swa_lr=0.02, anneal_epochs=anneal_epochs)
    for _ in range(4):
        expected.append(other.param_groups[0]["lr"])
        other.step()
        theirs.step()
    assert callback.used == pytest.approx(expected)


def test_each_parameter_group_goes_to_a_rate_of_its_own(make_trainer, points, fit):
    model = nn.Linear(5, 3)
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    callback = StochasticWeightAveraging(1, [0.01, 0.03], 0)
    fit(make_trainer(model, points, callbacks=(callback,), optimizer=optimizer))
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.03]


def test_batch_norms_get_the_statistics_that_torch_would_give_them(make_trainer, points, fit):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[3].requires_grad_(False)
    callback = StochasticWeightAveraging(1, 0.1)
    trainer = make_trainer(model, points, epochs=3, callbacks=(callback,))
    fit(trainer)
    own = callback.average.module
    assert torch.equal(own[3].running_mean, torch.zeros(4))  # frozen
    theirs = AveragedModel(own).module
    update_bn([(batch, None) for batch in points[0].split(4)], theirs)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(own[1], name), getattr(theirs[1], name))
        assert not torch.equal(getattr(own[1], name), getattr(model[1], name))


def test_the_average_is_saved_to_be_tested_and_to_start_from(averaging, start):
    run = start(averaging)
    state = read(run, "model_swa.pth")
    epochs = [read(run, f"checkpoint-epoch{epoch}.pth")["model"] for epoch in (2, 3)]
    expected = (epochs[0]["conv.weight"] + epochs[1]["conv.weight"]) / 2
    torch.testing.assert_close(state["model"]["conv.weight"], expected)
    assert read(run, "checkpoint-epoch3.pth")["row"].keys().isdisjoint({"swa_val_loss"})
    assert json.loads((run / "summary.json").read_text())["last"]["swa_val_loss"] > 0
    model = MODELS.find("BlobNet")()
    load_matching(model, run / "checkpoints" / "model_swa.pth")
    assert torch.equal(model.conv.weight, state["model"]["conv.weight"])
    with pytest.raises(
        UsageError, match=r"holds weights only; they can start a run: model\.weights="
    ):
        start_from_checkpoint(run / "checkpoints" / "model_swa.pth", ["trainer.epochs=4"])


@pytest.mark.parametrize("moment", [("step", 4), ("step", 8), ("step", 12), ("epoch", 2)])
def test_a_resume_ends_with_the_same_average(averaging, whole_and_resumed, moment):
    whole, run = whole_and_resumed(averaging, moment)
    for name in ("checkpoint-epoch3.pth", "model_swa.pth"):
        one, other = read(whole, name), read(run, name)
        assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])
    ends = [json.loads((each / "summary.json").read_text())["last"] for each in (whole, run)]
    assert ends[0]["swa_val_loss"] == ends[1]["swa_val_loss"]
    assert ends[0]["lr"] == ends[1]["lr"]


def test_a_stop_while_the_average_is_evaluated_saves_it_nowhere(averaging, start, interrupt):
    interrupt |= {("valid", 4, 1): "SIGTERM"}
    with pytest.raises(StoppedError, match="after epoch 3"):
        start(averaging)
    run = start(averaging, run_id="run")
    whole = start(averaging, run_id="whole")
    for name in ("checkpoint-epoch3.pth", "model_swa.pth"):
        one, other = read(whole, name)["model"], read(run, name)["model"]
        assert all(torch.equal(one[key], other[key]) for key in one)
    last = read(run, "checkpoint-epoch3.pth")["model"]["conv.weight"]
    assert not torch.equal(last, read(run, "model_swa.pth")["model"]["conv.weight"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.ema_decay=0.9", r"callbacks\.0: trainer\.ema_decay averages the weights already"),
        ("trainer.epochs=1", r"args\.start: expected at most trainer\.epochs, 1, found 2"),
    ],
)
def test_what_does_not_fit_the_config_is_told(averaging, load, override, words):
    with pytest.raises(ConfigError, match=words):
        load(averaging, override)


@pytest.mark.parametrize(("rates", "count"), [([0.1, 0.2], 2), ([], 0)])
def test_rates_of_other_parameter_groups_are_told(make_trainer, points, fit, rates, count):
    callback = StochasticWeightAveraging(1, rates)
    with pytest.raises(UsageError, match=f"lr has {count} rates for 1 parameter groups"):
        fit(make_trainer(nn.Linear(5, 3), points, callbacks=(callback,)))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"start": 0, "lr": 0.1}, "start: .*0, found 0"),
        ({"start": 1, "lr": 0.0}, "lr: .* found 0.0"),
        ({"start": 1, "lr": [0.1, -1.0]}, "lr: .* found .*-1.0"),
        ({"start": 1, "lr": 0.1, "anneal_epochs": -1}, "anneal_epochs: .*0, found -1"),
    ],
)
def test_a_number_out_of_range_is_told(averaging, load, args, words):
    averaging["callbacks"][0]["args"] = args
    with pytest.raises(ConfigError, match=f"callbacks.0.args.{words}"):
        load(averaging)


def test_stopping_before_the_start_averages_nothing_and_says_so(
    make_trainer, points, fit, caplog, monkeypatch
):
    callback = StochasticWeightAveraging(4, 0.1)
    settings = {"epochs": 5, "early_stop": 1, "monitor": "min step"}  # the first stays the best
    monkeypatch.setattr(logging.getLogger("train"), "propagate", True)
    fit(make_trainer(nn.Linear(5, 3), points, callbacks=(callback,), **settings))
    assert "stopped before epoch 4: no weights were averaged" in caplog.text


def test_two_ranks_give_the_norms_the_statistics_of_all_their_batches(
    make_trainer, points, two_processes
):
    def train_rank(rank):
        torch.manual_seed(0)
        callback = StochasticWeightAveraging(1, 0.1)
        with distributed.process_group(torch.device("cpu")):
            model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
            data = tuple(part[:24] for part in points)
            trainer = make_trainer(model, data, batch_size=4, callbacks=(callback,), epochs=2)
            trainer.fit(logger=RunLogger(None))
        return callback.average.module

    models = two_processes(train_rank)
    theirs = AveragedModel(models[0]).module
    update_bn([(batch, None) for batch in points[0][:24].split(4)], theirs)
    for model in models:
        for name, value in theirs.state_dict().items():
            if "num_batches" not in name:
                torch.testing.assert_close(model.state_dict()[name], value)
