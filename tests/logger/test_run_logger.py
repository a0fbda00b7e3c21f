"""What a trainer tells arrives everywhere it should, and a failing chart stops nothing."""

import json
import os
import subprocess
import sys
from typing import ClassVar

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from base import BaseWriter
from base.base_writer import ResumedFrom
from base.config.schema import Config
from base.errors import WriteError
from base.registry import WRITERS
from logger import RunDirectory, RunLogger, setup_logging
from logger.run_logger import open_logger

TREE = {"name": "tiny", "model": "M", "loss": "l", "optimizer": "SGD"}


def open_writers(run, resume=None, **settings):
    """Return the logger of a config, without the writers that only some projects have."""
    others = dict.fromkeys(WRITERS.names().keys() - {"csv", "tensorboard"}, False)
    config = Config.model_validate(TREE | {"logger": others | settings})
    return open_logger(config, run, resume)


class Pad(BaseWriter):
    """Notes what it is told; `lines` are those of the newest pad."""

    lines: ClassVar[list] = []

    def __init__(self, size: int = 3, *, run, config, resume=None):
        if size < 1:
            raise ValueError("a pad without paper")
        Pad.lines = [("opened", size, run.run_id, config["name"], resume)]

    def log_config(self, text):
        self.lines.append(("config", text))

    def log_model(self, model, inputs):
        self.lines.append(("model", inputs))

    def log_step(self, values, step):
        self.lines.append(("step", values, step))

    def log_epoch(self, row):
        self.lines.append(("epoch", row))

    def flush(self):
        self.lines.append(("flush",))

    def finish(self, summary):
        self.lines.append(("finish", summary))

    def close(self):
        self.lines.append(("close",))


@pytest.fixture
def pad(monkeypatch):
    """A writer of the user's own, registered as "pad"."""
    monkeypatch.setattr(WRITERS, "registered", dict(WRITERS.registered))
    return WRITERS.register("pad")(Pad)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    setup_logging(None)
    return run


def row(epoch):
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "seconds": 4.08,
        "samples_per_second": 12345.6,
        "lr": 0.1,
        "loss": 1 / epoch,
        "accuracy": 0.98765,
        "val_loss": 2 / epoch,
    }


def train(logger, epochs, *, first_step=None):
    """Tell `logger` epochs of ten steps, the first of them perhaps from its middle on."""
    for epoch in epochs:
        start = first_step if first_step and epoch == epochs[0] else 10 * epoch - 9
        for step in range(start, 10 * epoch + 1):
            logger.log_step({"loss": 1 / step}, step)
        logger.log_epoch(row(epoch), num_epochs=3)


def curve(run, part, tag="loss"):
    events = EventAccumulator(str(run.tensorboard / part), {"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_an_epoch_is_one_line_one_row_and_one_point(run, capsys):
    logger = open_writers(run)
    logger.log_epoch(row(2), num_epochs=20, waiting=0.123)
    logger.close()
    assert capsys.readouterr().out == (
        "epoch 2/20  loss 0.5  accuracy 0.9877  val_loss 1  4.1 s  12346 samples/s"
        "  waiting for data 12%\n"
    )
    header, line = run.metrics_file.read_text().splitlines()
    assert header == "epoch,step,seconds,samples_per_second,lr,loss,accuracy,val_loss"
    assert line == "2,20,4.08,12345.6,0.1,0.5,0.98765,1.0"
    assert curve(run, "valid") == [(20, 1.0)]


@pytest.mark.parametrize(
    ("step", "mid_epoch"), [(10, False), (14, True), (20, True), (20, False), (30, False)]
)
def test_a_resumed_run_logs_what_an_uninterrupted_one_does(run, tmp_path, step, mid_epoch):
    whole = RunDirectory(tmp_path / "whole")
    whole.path.mkdir()
    logger = open_writers(whole)
    train(logger, [1, 2, 3])
    logger.close()

    logger = open_writers(run)
    train(logger, [1, 2, 3])  # more than its last checkpoint has
    logger.close()
    num_completed = (step - 1) // 10 if mid_epoch else step // 10
    logger = open_writers(run, ResumedFrom(num_completed, step, mid_epoch))
    train(logger, range(num_completed + 1, 4), first_step=step + 1)
    logger.close()

    assert run.metrics_file.read_text() == whole.metrics_file.read_text()
    assert curve(run, "train") == curve(whole, "train")
    assert curve(run, "valid") == curve(whole, "valid")


KILLED = """
import json, os, signal, sys
from pathlib import Path
from base.config.schema import Config
from logger import RunDirectory
from logger.run_logger import open_logger
config = Config.model_validate(json.loads(sys.argv[2]))
logger = open_logger(config, RunDirectory(Path(sys.argv[1])))
for step in range(1, 9):
    logger.log_step({"loss": 1 / step}, step)
    logger.log_epoch({"epoch": step, "step": step, "seconds": 1, "samples_per_second": 1,
                      "loss": 1 / step, "val_loss": 1.0}, num_epochs=9)
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_run(run):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", KILLED, str(run.path), json.dumps(TREE)],
        env=environment,
        check=False,
    )


def test_a_killed_run_loses_nothing_it_was_told(run):
    kill_a_run(run)
    assert [step for step, _ in curve(run, "train")] == list(range(1, 9))
    assert [step for step, _ in curve(run, "valid")] == list(range(1, 9))
    logger = open_writers(run, ResumedFrom(8, 8))
    logger.close()
    assert len(run.metrics_file.read_text().splitlines()) == 9


def test_a_run_killed_before_its_first_checkpoint_starts_clean(run):
    kill_a_run(run)
    logger = open_writers(run)
    logger.log_step({"loss": 0.5}, 1)
    logger.close()
    assert not run.metrics_file.exists()
    assert curve(run, "train") == [(1, 0.5)]


def test_config_graph_and_inputs_are_shown_once(run):
    model, inputs = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.rand(4, 1, 8, 8)
    for resume in (None, ResumedFrom(0, 5, mid_epoch=True)):
        logger = open_writers(run, resume)
        logger.log_config("seed: 1")
        logger.log_model(model, lambda: inputs)
        logger.close()
    events = EventAccumulator(str(run.tensorboard / "train"), {"tensors": 0}).Reload()
    assert events.Tags()["graph"]
    assert events.Tags()["images"] == ["inputs"]
    [event] = events.Tensors("config/text_summary")
    assert event.tensor_proto.string_val == [b"```yaml\nseed: 1\n```"]


def test_finishing_leaves_a_summary_that_every_json_reader_reads(run):
    logger = open_writers(run)
    logger.finish({"best": {"val_loss": 1.0}, "worst": float("nan"), "run": run.path})
    logger.close()
    summary = json.loads(run.summary_file.read_text())
    assert summary == {"best": {"val_loss": 1.0}, "worst": None, "run": str(run.path)}
    assert curve(run, ".", "summary/best.val_loss") == [(0, 1.0)]


def test_without_a_run_nothing_is_written_or_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    logger = RunLogger()
    logger.log_config("seed: 1")
    logger.log_model(nn.Linear(2, 2), lambda: pytest.fail("nobody shows them"))
    train(logger, [1])
    logger.flush()
    logger.finish({"best": 1.0})
    logger.close()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_writers_that_are_off_write_nothing(run):
    logger = open_writers(run, tensorboard=False, csv=False)
    train(logger, [1])
    logger.finish({})
    logger.close()
    assert {path.name for path in run.path.iterdir()} == {"summary.json"}


def test_a_missing_tensorboard_costs_one_warning(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    logger = open_writers(run)
    train(logger, [1])
    logger.finish({})
    assert capsys.readouterr().out.count("warning: tensorboard is off: ") == 1
    assert run.metrics_file.exists()


def test_tensorboard_that_fails_is_off_and_the_run_goes_on(run, monkeypatch, capsys):
    def full(self, event):
        raise OSError(28, "No space left on device")

    logger = open_writers(run)
    monkeypatch.setattr("logger.event_file.EventFile.add_event", full)
    train(logger, [1])
    logger.finish({})
    logger.close()
    assert capsys.readouterr().out.count("warning: tensorboard is off from here on: OSError") == 1
    assert run.metrics_file.exists()


def test_a_full_disk_stops_the_run_where_the_record_is_at_stake(run, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    logger = open_writers(run, tensorboard=False)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match=r"metrics.csv: cannot be written: No space left"):
        logger.log_epoch(row(1), num_epochs=3)
    with pytest.raises(WriteError, match=r"summary.json: cannot be written: No space left"):
        logger.finish({})


def test_a_writer_of_ones_own_is_on_where_it_is_named_and_gets_its_options(run, pad):
    open_writers(run)
    assert pad.lines == []
    logger = open_writers(run, pad={"size": 5})
    logger.log_config("seed: 1")
    logger.log_model(nn.Identity(), lambda: "inputs")
    logger.log_step({"loss": 1.0}, 7)
    logger.flush()
    logger.finish({"best": None})
    logger.close()
    assert pad.lines == [
        ("opened", 5, "run", "tiny", None),
        ("config", "seed: 1"),
        ("model", "inputs"),
        ("step", {"loss": 1.0}, 7),
        ("flush",),
        ("finish", {"best": None}),
        ("close",),
    ]


def test_a_resumed_run_says_where_from_and_shows_config_and_model_no_more(run, pad):
    resume = ResumedFrom(1, 14, mid_epoch=True)
    logger = open_writers(run, resume, pad=True)
    logger.log_config("seed: 1")
    logger.log_model(nn.Identity(), lambda: pytest.fail("nobody shows them"))
    assert pad.lines == [("opened", 3, "run", "tiny", resume)]


def test_a_writer_that_cannot_be_opened_costs_one_warning(run, pad, capsys):
    logger = open_writers(run, pad={"size": 0})
    assert "pad" not in logger.writers
    assert "warning: pad is off: ValueError: a pad without paper" in capsys.readouterr().out


def test_a_writer_that_fails_says_where_and_leaves_its_traceback_in_the_log(
    run, pad, monkeypatch, capsys
):
    logger = open_writers(run, pad=True)
    monkeypatch.setattr(pad, "log_step", lambda self, *args: 1 / 0)
    setup_logging(run.log_file)
    logger.log_step({}, 1)
    place = f"{__file__}:{pad.log_step.__code__.co_firstlineno}"
    told = f"pad is off from here on: ZeroDivisionError: division by zero ({place})\n"
    assert capsys.readouterr().out == f"warning: {told}"
    assert f"{told}Traceback" in run.log_file.read_text()


def test_a_required_writer_ends_the_run_when_it_fails(run, pad, monkeypatch):
    monkeypatch.setattr(pad, "required", True, raising=False)
    with pytest.raises(ValueError, match="a pad without paper"):
        open_writers(run, pad={"size": 0})
    logger = open_writers(run, pad=True)
    monkeypatch.setattr(pad, "log_step", lambda self, *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logger.log_step({}, 1)
