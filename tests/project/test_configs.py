"""Every config of the project checks, trains, is stopped, and continues to the same last bit."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from typer.testing import CliRunner

import train
from base import Callback
from base.checkpoint.checkpoints import read_checkpoint
from base.config.check import load_config
from base.registry import CALLBACKS, WRITERS

FOLDER = Path(train.__file__).resolve().parent / "configs"
CONFIGS = sorted(
    path
    for path in FOLDER.rglob("*")
    if path.suffix in (".yaml", ".yml", ".json") and path.parent.name != "sweeps"
)
every_config = pytest.mark.parametrize(
    "path", CONFIGS, ids=lambda path: path.relative_to(FOLDER).as_posix()
)


@CALLBACKS.register()
class StopOnce(Callback):
    """Terminates the run after the first step of its second epoch, if `armed`."""

    armed: ClassVar[bool] = False

    def on_step(self, trainer: Any) -> None:
        if self.armed and trainer.epoch == 1:
            StopOnce.armed = False
            os.kill(os.getpid(), signal.SIGTERM)


def shortened(path: Path, folder: Path) -> dict[str, Any]:
    """Return a config over another one: two epochs of three small batches, no downloads."""
    config = load_config(path).model_dump()
    loader, model = config["data_loader"] or {}, config["model"]
    callbacks = [*(config["callbacks"] or ()), "StopOnce"]
    short: dict[str, Any] = {
        "extends": str(path),
        "trainer": {"epochs": 2, "limit_batches": 3, "save_dir": str(folder), "keep_last": 9},
        "callbacks": callbacks,
        "logger": {name: name == "csv" for name in WRITERS.own()},
    }
    if isinstance(loader.get("args"), Mapping) and "batch_size" in loader["args"]:
        short["data_loader"] = {"args": {"batch_size": 8}}
    if isinstance(model["args"], Mapping) and "weights" in model["args"]:
        short["model"] = {"args": {"weights": None}}
    if model.get("weights"):
        short["model"] = {"weights": None}
    return short


def run(config: Path, run_id: str) -> tuple[int, str]:
    """Do what `train.py -c CONFIG --run-id ID` does; return its exit code and what it prints."""
    result = CliRunner().invoke(train.app, ["-c", str(config), "--run-id", run_id])
    if result.exit_code == 3:
        pytest.skip(f"its data is not here: {result.output}")
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def tensors(nest: Any, path: str = "") -> dict[str, torch.Tensor]:
    """Return all tensors in a nest of mappings and lists by their path."""
    if isinstance(nest, torch.Tensor):
        return {path: nest}
    if isinstance(nest, Mapping):
        items = nest.items()
    elif isinstance(nest, list | tuple):
        items = enumerate(nest)
    else:
        return {}
    return {p: t for key, part in items for p, t in tensors(part, f"{path}.{key}").items()}


@every_config
def test_a_config_has_no_mistake(path, work_folder, monkeypatch):
    monkeypatch.chdir(work_folder)
    assert load_config(path).name


@every_config
def test_a_config_trains_and_a_stopped_run_continues_exactly(
    path, work_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(work_folder)
    short = tmp_path / "short.yaml"
    short.write_text(yaml.safe_dump(shortened(path, tmp_path / "saved")))
    code, output = run(short, "whole")
    assert code == 0, output
    monkeypatch.setattr(StopOnce, "armed", True)
    code, output = run(short, "parts")
    assert code == 143, output
    code, output = run(short, "parts")
    assert code == 0, output
    whole, parts = (
        read_checkpoint(next(tmp_path.glob(f"saved/*/{run_id}/checkpoints/checkpoint-epoch2.pth")))
        for run_id in ("whole", "parts")
    )
    assert whole["step"] == parts["step"]
    assert whole["metrics"] == parts["metrics"]
    for key in ("model", "loss", "optimizer", "ema"):
        expected, found = tensors(whole.get(key)), tensors(parts.get(key))
        different = [p for p in expected if not same(expected[p], found[p])]
        assert different == [], f"{key}: a resume gives other numbers"
    assert all(torch.isfinite(t).all() for t in tensors(whole["model"]).values())


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())
