"""Norms and histograms as TensorBoard reads them back, compared with those taken by hand."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from base.errors import ConfigError, StoppedError
from logger import RunDirectory, RunLogger
from logger.tensorboard_writer import TensorBoardWriter
from trainer.callbacks.statistics import Statistics

LOG_STEPS = [2, 4, 6, 7]  # of 7 batches


def read(folder):
    return EventAccumulator(str(folder), {"scalars": 0, "histograms": 0, "images": 0}).Reload()


@pytest.fixture
def fit_shown(tmp_path):
    """Return a function that trains a trainer to the end and returns its training events."""

    def fit_and_read(trainer):
        board = TensorBoardWriter(run=RunDirectory(tmp_path))
        logger = RunLogger(writers={"tensorboard": board})
        trainer.fit(logger=logger)
        assert logger.tensorboard is not None  # nothing failed
        logger.close()
        return read(tmp_path / "tensorboard" / "train")

    return fit_and_read


def norms_by_hand(model, points, clip):
    """Return (gradient, weight, step) of the bias and of everything at each of 7 SGD steps."""
    found = []
    for inputs, targets in zip(*(part.split(4) for part in points), strict=True):
        model.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        gradients = [parameter.grad for parameter in model.parameters()]
        weights = [parameter.detach().clone() for parameter in model.parameters()]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        steps = [p.detach() - w for p, w in zip(model.parameters(), weights, strict=True)]
        kinds = (gradients, weights, steps)
        found.append(
            [
                (kind[1].norm().item(), torch.cat([k.flatten() for k in kind]).norm().item())
                for kind in kinds
            ]
        )
    return [found[step - 1] for step in LOG_STEPS]


def test_norms_are_those_of_the_step_that_is_taken(make_trainer, points, fit_shown):
    model = nn.Linear(5, 3)
    expected = norms_by_hand(copy.deepcopy(model), points, clip=0.5)
    statistics = Statistics(per_layer=True, histograms=0)
    settings = {"log_interval": 2, "clip_grad_norm": 0.5}
    events = fit_shown(make_trainer(model, points, callbacks=(statistics,), **settings))
    for position, suffix in enumerate(["bias", ""]):
        gradient, weight, step = zip(
            *[[kind[position] for kind in kinds] for kinds in expected], strict=True
        )
        ratio = [s / w for s, w in zip(step, weight, strict=True)]
        kinds = {"gradient_norm": gradient, "weight_norm": weight, "update_ratio": ratio}
        for kind, values in kinds.items():
            points_read = events.Scalars(f"{kind}/{suffix}" if suffix else f"statistics/{kind}")
            assert [point.step for point in points_read] == LOG_STEPS
            assert [point.value for point in points_read] == pytest.approx(values, rel=1e-5)
    assert events.Tags()["histograms"] == []


def test_layers_are_shown_only_where_asked_for(make_trainer, points, fit_shown):
    events = fit_shown(make_trainer(nn.Linear(5, 3), points, callbacks=(Statistics(),)))
    assert {tag for tag in events.Tags()["scalars"] if "_" in tag} == {
        "statistics/gradient_norm",
        "statistics/weight_norm",
        "statistics/update_ratio",
    }


def test_gradients_that_the_optimizer_will_unscale_are_shown_unscaled(make_trainer, points):
    trainer = make_trainer(nn.Linear(5, 3), points)
    trainer.logger = RunLogger(None)
    statistics = Statistics(histograms=0)
    shown = {}
    trainer.logger = SimpleNamespace(log_step=lambda values, step: shown.update(values))
    trainer.network.weight.grad = torch.full((3, 5), 8.0)
    trainer.optimizer.grad_scale = torch.tensor(4.0)
    trainer.batch = trainer.num_batches - 1
    statistics._before_step(trainer)
    statistics.on_step(trainer)
    assert shown["statistics/gradient_norm"] == pytest.approx(2 * 15**0.5)


def test_lbfgs_has_no_gradient_norm(make_trainer, points, fit_shown):
    model = nn.Linear(5, 3)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    events = fit_shown(make_trainer(model, points, optimizer=optimizer, callbacks=(Statistics(),)))
    tags = events.Tags()["scalars"]
    assert "statistics/update_ratio" in tags
    assert "statistics/gradient_norm" not in tags


def test_histograms_are_of_the_last_step_of_every_other_epoch(make_trainer, points, fit_shown):
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3))
    trainer = make_trainer(model, points, epochs=4, callbacks=(Statistics(histograms=2),))
    seen = []
    model[0].register_forward_hook(lambda layer, args, output: seen.append(output.clone()))
    events = fit_shown(trainer)
    found = events.Histograms("activations/0")
    assert [event.step for event in found] == [14, 28]
    for event, outputs in zip(found, (seen[13], seen[27]), strict=True):
        assert event.histogram_value.num == outputs.numel() == 8  # the last batch has 2 samples
        assert event.histogram_value.sum == pytest.approx(outputs.double().sum().item(), rel=1e-5)
    weight = events.Histograms("weights/2.weight")[-1].histogram_value
    assert weight.sum_squares == pytest.approx(model[2].weight.square().sum().item(), rel=1e-5)
    assert events.Histograms("gradients/2.bias")[-1].histogram_value.num == 3
    assert not any(module._forward_hooks for module in model[1:])


def test_values_that_are_not_finite_do_not_end_the_curves(make_trainer, points, fit_shown):
    class Masked(nn.Linear):
        def forward(self, x):
            return super().forward(x).index_fill(1, torch.tensor([0]), float("-inf"))

    targets = points[1].clamp(min=1)
    events = fit_shown(make_trainer(Masked(5, 3), (points[0], targets), callbacks=(Statistics(),)))
    assert events.Histograms("activations/(model)")[0].histogram_value.num == 4


def test_a_run_with_statistics_has_the_same_weights_and_a_resume_the_same_points(
    tree, start, interrupt
):
    tree["callbacks"] = ["Interrupter"]
    plain = start(tree, "trainer.save_steps=1", run_id="plain")
    tree["callbacks"].append({"type": "Statistics", "args": {"per_layer": True}})
    whole = start(tree, "trainer.save_steps=1", run_id="whole")
    interrupt |= {("step", 7): "SIGTERM", ("epoch", 3): "crash"}
    with pytest.raises(StoppedError):
        start(tree, "trainer.save_steps=1")
    with pytest.raises(Exception, match="epoch"):
        start(tree, "trainer.save_steps=1")
    run = start(tree, "trainer.save_steps=1")
    last = [
        torch.load(r / "checkpoints/checkpoint-epoch3.pth", weights_only=True)["model"]
        for r in (plain, whole, run)
    ]
    for other in last[1:]:
        assert all(torch.equal(last[0][name], other[name]) for name in last[0])
    first, second = (read(r / "tensorboard/train") for r in (whole, run))
    assert first.Tags() == second.Tags()
    for tag in first.Tags()["scalars"]:
        assert values(first.Scalars(tag)) == values(second.Scalars(tag)), tag
    for tag in first.Tags()["histograms"]:
        assert counted(first.Histograms(tag)) == counted(second.Histograms(tag))


def test_with_two_processes_one_shows_and_both_train_as_before(two_processes, start, tree):
    tree["trainer"] |= {"epochs": 1}
    two_processes(lambda rank: start(tree, run_id="plain"))
    tree["callbacks"] += ["Statistics"]
    [run, _] = two_processes(lambda rank: start(tree))
    states = [
        torch.load(path / "checkpoints/checkpoint-epoch1.pth", weights_only=True)["model"]
        for path in (run, run.parent / "plain")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    event = read(run / "tensorboard/train").Scalars("statistics/gradient_norm")[0]
    assert event.step == 2


def values(events):
    return [(event.step, event.value) for event in events]


def counted(events):
    return [(event.step, event.histogram_value) for event in events]


def test_histograms_that_nobody_will_see_are_told(tree, start):
    tree["callbacks"] = ["Statistics"]
    run = start(tree, "logger.tensorboard=false", "trainer.epochs=1", "lr_scheduler=null")
    log = (run / "train.log").read_text()
    assert "Statistics: no histograms, since logger.tensorboard is false" in log


def test_histograms_below_0_are_told(tree, load):
    tree["callbacks"] = [{"type": "Statistics", "args": {"histograms": -1}}]
    with pytest.raises(ConfigError, match=r"args\.histograms: .*0, found -1"):
        load(tree)
