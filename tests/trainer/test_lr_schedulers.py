"""Every scheduler of torch runs from a config as it does by hand, and goes on after a resume."""

import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as by_torch

from base.checkpoint.checkpoints import read_checkpoint, write_checkpoint
from base.checkpoint.state import load_parts
from base.config.check import check_config
from base.config.source import Source
from base.errors import ConfigError
from base.registry import LR_SCHEDULERS
from trainer import parts

EPOCHS, BATCHES = 6, 4
RATES = [1.0, 0.25]  # of the two parameter groups

WARM_UP = {
    "schedulers": [{"type": "LinearLR"}, {"type": "CosineAnnealingLR"}],
    "milestones": [3],
}


def warm_up(optimizer, length):
    linear = by_torch.LinearLR(optimizer)
    cosine = by_torch.CosineAnnealingLR(optimizer, length - 3)
    return by_torch.SequentialLR(optimizer, [linear, cosine], [3])


def chain(optimizer, length):
    linear = by_torch.LinearLR(optimizer, total_iters=2)
    return by_torch.ChainedScheduler([linear, by_torch.CosineAnnealingLR(optimizer, length)])


def nest(optimizer, length):
    first = by_torch.ChainedScheduler(
        [by_torch.ConstantLR(optimizer, 0.5, 1), by_torch.ExponentialLR(optimizer, 0.9)]
    )
    rest = by_torch.LambdaLR(optimizer, lambda epoch: 1 / (epoch + 1))
    return by_torch.SequentialLR(optimizer, [first, rest], [2])


# What a config says, and the same by hand where keyword arguments do not say it.
CASES = {
    "StepLR": ({"step_size": 2}, None),
    "MultiStepLR": ({"milestones": [1, 4], "gamma": 0.5}, None),
    "ConstantLR": ({"factor": 0.5, "total_iters": 3}, None),
    "LinearLR": ({"start_factor": 0.2, "total_iters": 4}, None),
    "ExponentialLR": ({"gamma": 0.8}, None),
    "PolynomialLR": ({"total_iters": 4, "power": 2}, None),
    "CosineAnnealingWarmRestarts": ({"T_0": 2, "T_mult": 2, "eta_min": 0.01}, None),
    "CyclicLR": ({"base_lr": 0.1, "max_lr": [0.5, 0.9], "step_size_up": 2}, None),
    "CosineAnnealingLR": ({}, lambda o, length: by_torch.CosineAnnealingLR(o, length)),
    "OneCycleLR": ({}, lambda o, length: by_torch.OneCycleLR(o, RATES, total_steps=length)),
    "LambdaLR": (
        {"lr_lambda": ["0.9 ** epoch", "1 if epoch < 2 else 0.1"]},
        lambda o, length: by_torch.LambdaLR(
            o, [lambda epoch: 0.9**epoch, lambda epoch: 1 if epoch < 2 else 0.1]
        ),
    ),
    "MultiplicativeLR": (
        {"lr_lambda": "1 - 0.5 / epoch"},
        lambda o, length: by_torch.MultiplicativeLR(o, lambda epoch: 1 - 0.5 / epoch),
    ),
    "SequentialLR": (WARM_UP, warm_up),
    "ChainedScheduler": (
        {
            "schedulers": [
                {"type": "LinearLR", "args": {"total_iters": 2}},
                {"type": "CosineAnnealingLR"},
            ]
        },
        chain,
    ),
}
NESTED = {
    "schedulers": [
        {
            "type": "ChainedScheduler",
            "args": {
                "schedulers": [
                    {"type": "ConstantLR", "args": {"factor": 0.5, "total_iters": 1}},
                    {"type": "ExponentialLR", "args": {"gamma": 0.9}},
                ]
            },
        },
        {"type": "LambdaLR", "args": {"lr_lambda": "1 / (epoch + 1)"}},
    ],
    "milestones": [2],
}


def config_of(kind, args=None, interval="epoch", **settings):
    tree = {
        "name": "curve",
        "dataset": {"type": "Blobs", "args": {"size": 16}},
        "data_loader": {"args": {"batch_size": 4}},
        "model": {"type": "Linear", "args": [3, 1]},
        "loss": "mse_loss",
        "optimizer": {
            "type": "SGD",
            "args": {"lr": RATES[0], "momentum": 0.9},
            "param_groups": [{"params": "weight"}, {"params": "bias", "lr": RATES[1]}],
        },
        "lr_scheduler": {"type": kind, "args": args or {}, "interval": interval},
        "trainer": {"epochs": EPOCHS, "monitor": "min loss", **settings},
    }
    return check_config(Source(tree))


def from_config(config):
    optimizer = parts.build_optimizer(config, nn.Linear(3, 1), None)
    return optimizer, parts.build_lr_scheduler(config, optimizer, range(BATCHES))


def by_hand(kind, args, make, length):
    model = nn.Linear(3, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": RATES[1]}]
    optimizer = torch.optim.SGD(groups, lr=RATES[0], momentum=0.9)
    scheduler = make(optimizer, length) if make else getattr(by_torch, kind)(optimizer, **args)
    return optimizer, scheduler


def curve(optimizer, scheduler, count, *metrics):
    """Return the rates and momenta of every group before each of `count` steps."""
    rows = []
    for number in range(count):
        rows.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step(*(metric[number] for metric in metrics))
    return rows


def after_checkpoint(optimizer, scheduler, config):
    """Return new parts of a config that took up the states of others through a checkpoint."""
    state = {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict()}
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(path := Path(folder) / "x.pth", state)
        state = read_checkpoint(path)
    fresh = from_config(config)
    load_parts(dict(zip(state, fresh, strict=True)), state)
    return fresh


ALL = [*((kind, *case) for kind, case in CASES.items()), ("SequentialLR", NESTED, nest)]


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize(("kind", "args", "make"), ALL, ids=[*CASES, "nested"])
def test_a_config_gives_the_curve_of_torch_also_across_a_resume(kind, args, make, interval):
    config = config_of(kind, args, interval)
    length = EPOCHS * (BATCHES if interval == "step" else 1)
    expected = curve(*by_hand(kind, args, make, length), length)
    assert curve(*from_config(config), length) == expected
    middle = length // 2
    first = from_config(config)
    before = curve(*first, middle)
    assert before + curve(*after_checkpoint(*first, config), length - middle) == expected


def test_every_scheduler_of_torch_is_tried():
    names = LR_SCHEDULERS.names().items()
    of_torch = {name for name, source in names if source.startswith("torch")}
    assert of_torch == {*CASES, "ReduceLROnPlateau"}


def test_a_plateau_has_its_mode_from_the_monitor_alone():
    with pytest.raises(ConfigError, match=r"args\.mode: follows trainer\.monitor; remove it"):
        config_of("ReduceLROnPlateau", {"mode": "min"})


@pytest.mark.parametrize(("monitor", "sign"), [("min loss", 1), ("max loss", -1)])
def test_a_plateau_follows_the_monitor_also_across_a_resume(monitor, sign):
    args = {"patience": 1, "factor": 0.5, "min_lr": [0.1, 0.01]}
    config = config_of("ReduceLROnPlateau", args, monitor=monitor)
    values = [sign * value for value in (3.0, 2.0, 2.5, 2.5, 2.5, 2.5)]
    mode = {"mode": monitor.split()[0]}
    expected = curve(*by_hand("ReduceLROnPlateau", args | mode, None, 6), 6, values)
    assert expected[-1][0][0] == 0.5
    first = from_config(config)
    before = curve(*first, 3, values[:3])
    assert before + curve(*after_checkpoint(*first, config), 3, values[3:]) == expected


@pytest.mark.parametrize("args", [WARM_UP, [*WARM_UP.values()]], ids=["by name", "by position"])
def test_warm_up_and_cosine_end_where_the_run_does(args):
    rates = [row[0][0] for row in curve(*from_config(config_of("SequentialLR", args)), EPOCHS)]
    assert rates[:4] == pytest.approx([1 / 3, 7 / 15, 3 / 5, 1.0])
    assert rates[-1] == pytest.approx(0.25)  # two thirds of a cosine over three epochs


def test_the_parts_of_a_sequence_know_how_long_they_last():
    cosine = {"type": "CosineAnnealingLR"}
    chained = {"type": "ChainedScheduler", "args": {"schedulers": [cosine]}}
    args = {"schedulers": [{"type": "OneCycleLR"}, chained, cosine], "milestones": [5, 12]}
    _, sequence = from_config(config_of("SequentialLR", args, "step"))
    first, second, third = sequence._schedulers
    assert (first.total_steps, second._schedulers[0].T_max, third.T_max) == (5, 7, 12)


def test_a_sequence_of_another_number_of_parts_is_refused_by_torch():
    config = config_of("SequentialLR", WARM_UP | {"milestones": [2, 4]})
    with pytest.raises(ConfigError, match="lr_scheduler: SequentialLR refuses its args: Sequent"):
        from_config(config)


def test_one_cycle_knows_its_steps_with_accumulation_and_a_shorter_last_group():
    config = config_of("OneCycleLR", interval="step", accumulate=3)
    assert from_config(config)[1].total_steps == EPOCHS * 2


@pytest.mark.parametrize("text", ["0.9 ^ epoch", ["1", "0.9 ^ epoch"]])
def test_a_formula_is_checked_before_training_at_its_place(text):
    place = r"lr_scheduler.args.lr_lambda: expected a formula of numbers, "
    with pytest.raises(ConfigError, match=place):
        config_of("LambdaLR", {"lr_lambda": text})


@pytest.mark.parametrize("moment", [("step", 7), ("epoch", 2)])
@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "LambdaLR", "interval": "step", "args": {"lr_lambda": "0.9 ** epoch"}},
        {"type": "SequentialLR", "args": WARM_UP},
    ],
    ids=["formula", "warm-up"],
)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    tree, start, resume, interrupt, tmp_path, scheduler, moment
):
    tree["lr_scheduler"] = scheduler
    whole = start(tree, run_id="whole")
    interrupt[moment] = "SIGTERM"
    with pytest.raises(Exception, match="stopped by SIGTERM"):
        start(tree, run_id="parts")
    run = whole.parent / "parts"
    resume(run)
    states = [
        torch.load(each / "checkpoints" / "checkpoint-epoch3.pth", weights_only=True)
        for each in (whole, run)
    ]
    assert states[0]["lr_scheduler"] == states[1]["lr_scheduler"]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name
