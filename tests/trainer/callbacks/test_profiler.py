"""The profiler: which steps it records, where they go, and that training is the same with it."""

import json
import logging

import pytest
import torch
from torch import nn

from base.errors import ConfigError
from trainer.callbacks.profiler import Profiler


def weights(run):
    return torch.load(run / "checkpoints/checkpoint-epoch1.pth", weights_only=True)["model"]


def test_steps_are_profiled_into_a_trace_and_a_table(tree, start):
    tree["trainer"]["epochs"] = 1
    plain = start(tree, run_id="plain")
    tree["callbacks"] = [*tree["callbacks"], {"type": "Profiler", "args": {"steps": 2}}]
    run = start(tree)
    (trace,) = (run / "tensorboard").glob("*.pt.trace.json")
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    steps = {name for name in names if str(name).startswith("ProfilerStep")}
    assert len(steps) == 2
    assert "aten::conv2d" in names
    log = (run / "train.log").read_text()
    assert "Self CPU" in log
    assert f"trace: {run / 'tensorboard'}" in log
    expected, found = weights(plain), weights(run)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_no_steps_at_all_are_told(tree, load):
    tree["callbacks"] = [{"type": "Profiler", "args": {"steps": 0}}]
    with pytest.raises(ConfigError, match=r"callbacks\.0\.args\.steps: .*0, found 0"):
        load(tree)


def test_an_epoch_that_is_too_short_is_told(make_trainer, points, fit, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("train"), "propagate", True)
    data = tuple(part[:12] for part in points)
    fit(make_trainer(nn.Linear(5, 3), data, callbacks=(Profiler(),)))
    assert "Profiler: nothing recorded, an epoch has too few steps" in caplog.text
