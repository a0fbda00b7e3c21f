"""Weights & Biases is told what it should be, really (offline), and stops nothing when it fails."""

import json
import struct
import subprocess
import sys
import types
from csv import DictReader
from pathlib import Path

import pytest

pytest.importorskip("wandb")

import wandb
from wandb.proto.wandb_internal_pb2 import Record

import train
from base.base_writer import ResumedFrom
from base.config.check import load_config
from base.config.schema import Config
from base.errors import ConfigError
from logger import RunDirectory, setup_logging
from logger.run_logger import open_logger

TREE = {"name": "tiny", "model": "M", "loss": "l", "optimizer": "SGD"}
TRAINED = {
    "name": "fake",
    "dataset": {
        "type": "FakeData",
        "args": {"size": 60, "image_size": [1, 8, 8], "num_classes": 3},
        "transform": ["PILToTensor", {"type": "ToDtype", "args": {"dtype": "float32"}}],
    },
    "data_loader": {"args": {"batch_size": 10, "validation_split": 0.2}},
    "model": {
        "type": "Sequential",
        "args": [{"type": "Flatten"}, {"type": "Linear", "args": [64, 3]}],
    },
    "loss": "cross_entropy",
    "optimizer": {"type": "SGD", "args": {"lr": 0.001}},
    "trainer": {"epochs": 2, "limit_batches": 4, "log_interval": 2, "monitor": "min val_loss"},
    "logger": {"tensorboard": False},
}
BLOCK = 32768  # of the LevelDB log that a .wandb file is, behind seven bytes of its own


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch, core_writers_only):
    """Keep wandb off the network, out of the home folder, and its service out of later tests."""
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")  # its hook of stdout outlives the run
    monkeypatch.setenv("WANDB_X_DISABLE_STATS", "true")
    yield
    wandb.teardown()
    setup_logging(None)  # forgets what was said, which the next log file would begin with


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "saved" / "tiny" / "one")
    run.path.mkdir(parents=True)
    setup_logging(None)
    return run


@pytest.fixture
def config(tmp_path):
    """The path of a config that trains two epochs of four steps."""
    path = tmp_path / "fake.yaml"
    path.write_text(json.dumps(TRAINED))
    return str(path)


def records(run_path):
    """Yield what every process of a run wrote, in order, once its service has written it."""
    wandb.teardown()
    for file in sorted(run_path.glob("wandb/offline-run-*/*.wandb")):
        data, position, record = file.read_bytes(), 7, b""
        while position < len(data):
            if BLOCK - position % BLOCK < 7:  # too little for a header
                position += BLOCK - position % BLOCK
            _, length, kind = struct.unpack_from("<IHB", data, position)
            position += 7 + length
            record += data[position - length : position]
            if kind in (1, 4):  # whole, or the last part
                yield Record.FromString(record)
                record = b""


def values(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def rows(run_path):
    """Return what was logged, without wandb's own columns but its step."""
    logged = [values(record.history.item) for record in records(run_path)]
    return [
        {key: value for key, value in row.items() if key not in ("_timestamp", "_runtime")}
        for row in logged
        if row
    ]


def read_rows(path):
    with open(path, newline="") as file:
        return [{name: float(cell) for name, cell in row.items()} for row in DictReader(file)]


def under(prefix, row):
    return {key.removeprefix(prefix): row[key] for key in row if key.startswith(prefix)}


def open_writers(run, resume=None, **options):
    logger = {"wandb": {"mode": "offline"} | options, "tensorboard": False}
    return open_logger(Config.model_validate(TREE | {"logger": logger}), run, resume)


def told(run, *, steps=(), epochs=(), resume=None):
    logger = open_writers(run, resume)
    for step in steps:
        logger.log_step({"loss": 1 / step}, step)
        if step % 10 == 0 and step // 10 in epochs:
            row = {"epoch": step // 10, "step": step, "val_loss": 2 / step}
            logger.log_epoch(row, num_epochs=3)
    return logger


def test_training_tells_config_curves_rows_summary_and_the_best_checkpoint(
    tmp_path, config, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command = ["-c", config, "--run-id", "one", "logger.wandb=true"]
    train.app(command, standalone_mode=False)

    run = RunDirectory(tmp_path / "saved" / "fake" / "one")
    [start] = [record.run for record in records(run.path) if record.run.run_id]
    assert (start.project, start.run_id, start.display_name) == ("fake", "fake-one", "one")
    assert values(start.config.update)["trainer"]["epochs"] == 2
    logged = rows(run.path)
    steps = [row["step"] for row in logged if "train/loss" in row]
    assert steps == [2, 4, 6, 8]
    csv = read_rows(run.metrics_file)
    assert len(csv) == 2
    assert [under("epoch/", row) for row in logged if "epoch/epoch" in row] == csv
    summary = {}
    for record in records(run.path):
        summary |= values(record.summary.update)
    assert summary["best"]["val_loss"] == min(row["val_loss"] for row in csv)
    [artifact] = [record.artifact for record in records(run.path) if record.artifact.name]
    assert (artifact.type, artifact.name) == ("model", "model-fake-one")
    assert {entry.path for entry in artifact.manifest.contents} == {"model_best.pth", "config.yaml"}


def test_a_continued_run_is_the_same_there(run):
    told(run, steps=range(1, 21), epochs=[1]).close()  # killed where it would have told epoch 2
    wandb.teardown()
    resume = ResumedFrom(1, 12, mid_epoch=True)
    told(run, steps=range(13, 31), epochs=[2, 3], resume=resume).close()
    ids = [record.run.run_id for record in records(run.path) if record.run.run_id]
    assert ids == ["tiny-one", "tiny-one"]
    logged = rows(run.path)
    losses = {row["_step"]: row["train/loss"] for row in logged if "train/loss" in row}
    assert losses == {2 * step: 1 / step for step in range(1, 31)}
    assert [row["epoch/epoch"] for row in logged if "epoch/epoch" in row] == [1, 2, 3]


def test_a_run_that_ends_with_an_error_has_failed_there(run):
    logger = told(run, steps=[1])
    try:
        raise ValueError("of the user's model")
    except ValueError:
        logger.close()
    assert [r.exit.exit_code for r in records(run.path) if r.HasField("exit")] == [1]


def test_what_the_environment_says_holds_where_the_config_says_nothing(run, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    told(run, steps=[1]).close()
    assert [record.run.project for record in records(run.path) if record.run.run_id] == ["theirs"]


def test_without_a_login_training_goes_on_and_nobody_is_asked(run, monkeypatch, capsys):
    logger = open_writers(run, mode="online")
    logger.log_step({"loss": 1.0}, 1)
    logger.log_epoch({"epoch": 1, "step": 1, "loss": 1.0}, num_epochs=1)
    logger.close()
    said = capsys.readouterr().out
    assert said.count("warning: wandb is off: RuntimeError: no API key: run `wandb") == 1
    assert run.metrics_file.exists()


@pytest.mark.parametrize("broken", ["log", "finish"])
def test_a_failure_is_said_once_and_stops_nothing(run, monkeypatch, capsys, broken):
    def fail(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    logger = told(run, steps=[1])
    monkeypatch.setattr(wandb.Run, broken, fail)
    logger.log_step({"loss": 1.0}, 2)
    logger.log_epoch({"epoch": 1, "step": 2, "loss": 1.0}, num_epochs=1)
    logger.finish({"best": {}})
    logger.close()
    said = capsys.readouterr().out
    assert said.count("wandb is off from here on: OSError: [Errno 28] No space") == 1
    assert run.metrics_file.exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds it below Linux's /proc")
def test_a_service_that_is_gone_shows_no_traceback_as_python_exits(tmp_path):
    script = f"""
import os, signal, sys
from pathlib import Path
from base.config.schema import Config
from logger import RunDirectory, setup_logging
from logger.run_logger import open_logger
run = RunDirectory(Path({str(tmp_path / "run")!r}))
run.path.mkdir()
setup_logging(None)
options = {{"wandb": {{"mode": "offline"}}, "tensorboard": False}}
logger = open_logger(Config.model_validate({TREE!r} | {{"logger": options}}), run)
children = Path("/proc/self/task").glob("*/children")
for pid in " ".join(file.read_text() for file in children).split():
    if "wandb" in Path(f"/proc/{{pid}}/cmdline").read_text():
        os.kill(int(pid), signal.SIGKILL)
        print("killed")
logger.log_step({{"loss": 1.0}}, 1)
logger.finish({{"best": {{}}}})
logger.close()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0
    assert "killed" in ended.stdout
    assert "wandb is off from here on" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_a_broken_installation_costs_one_warning(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    told(run, steps=[1, 2]).close()
    assert capsys.readouterr().out.count("warning: wandb is off: ") == 1


def test_where_it_is_not_installed_the_config_says_so(tmp_path, monkeypatch, capsys, config):
    monkeypatch.setattr("logger.wandb.wandb_writer.find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        train.app(["-c", config, "logger.wandb=true"], standalone_mode=False)
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert "command line: logger.wandb: wandb is not installed: pip install wandb; or set" in said
    assert not (tmp_path / "saved").exists()


def test_its_options_are_checked_where_they_stand(config):
    with pytest.raises(ConfigError) as error:
        load_config(Path(config), ["logger.wandb={mode: of, projct: p}"])
    assert str(error.value).splitlines() == [
        "command line: logger.wandb.mode: expected 'online', 'offline' or 'disabled', found 'of'",
        "command line: logger.wandb.projct: wandb takes no 'projct' (did you mean 'project'?)",
    ]
