"""Every shipped config is right, says how it did, and every key stands in the reference."""

import re
import shutil
from pathlib import Path

import pytest
import torch

import make_data
import train
from base.checkpoint.checkpoints import read_checkpoint
from base.config.check import load_config
from base.config.schema import (
    Config,
    DataLoaderConfig,
    DatasetConfig,
    LoggerConfig,
    LrSchedulerConfig,
    MetricConfig,
    ModelConfig,
    OptimizerConfig,
    TrainerConfig,
)  # fmt: skip
from trainer.resume import start_from_config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path for path in (ROOT / "configs").iterdir() if path.is_file())
SECTIONS = {
    "": Config,
    "dataset": DatasetConfig,
    "data_loader": DataLoaderConfig,
    "model": ModelConfig,
    "metrics": MetricConfig,
    "optimizer": OptimizerConfig,
    "lr_scheduler": LrSchedulerConfig,
    "trainer": TrainerConfig,
    "logger": LoggerConfig,
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_has_no_mistake(path, project_root, monkeypatch):
    monkeypatch.chdir(project_root)
    assert load_config(path).name


SHIPPED = {
    "digits.yaml", "mnist.yaml", "fashion_mnist.yaml", "csv.yaml", "text.yaml", "folder.yaml",
    "transfer.yaml",
}  # fmt: skip


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.name in SHIPPED], ids=lambda p: p.name)
def test_a_yaml_opens_with_its_command_and_its_result(path):
    command, result = path.read_text().splitlines()[:2]
    assert command == f"# python train.py -c {path.name}"
    assert re.fullmatch(r"# hardware: .+  time: .+  score: .+", result)


# --- a few steps of each --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory, write_small_mnist) -> Path:
    """A working directory with small data for every shipped config."""
    folder = tmp_path_factory.mktemp("work")
    write_small_mnist(folder / "data")
    write_small_mnist(folder / "fashion")
    (folder / "fashion" / "MNIST").rename(folder / "data" / "FashionMNIST")
    for kind in make_data.CONFIGS:
        make_data.main(kind, folder / "data")
    return folder


QUICK = (
    "trainer.limit_batches=3", "trainer.epochs=3", "data_loader.args.batch_size=8",
    "logger.tensorboard=false", "trainer.keep_last=9",
)  # fmt: skip
SPECIAL = {"transfer.yaml": ("model.args.weights=null",)}  # nothing can be downloaded here


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if p.name in SHIPPED | {"config.json"}], ids=lambda p: p.name
)
@pytest.mark.usefixtures("core_writers_only")
def test_a_shipped_config_trains_and_resumes(path, data_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(data_folder)
    changes = [*QUICK, *SPECIAL.get(path.name, ()), f"trainer.save_dir={tmp_path}"]

    def run(run_id: str) -> Path:
        config, start = start_from_config(path, changes, run_id)
        try:
            train.main(config, start)
        finally:
            start.run.release()
        return start.run.path / "checkpoints"

    whole = run("whole")
    shutil.copytree(whole.parent, whole.parent.parent / "part")
    part = whole.parent.parent / "part" / "checkpoints"
    for later in ("checkpoint-epoch2.pth", "checkpoint-epoch3.pth"):
        (part / later).unlink()
    (part.parent / "summary.json").unlink()
    assert run("part") == part
    expected, found = (
        read_checkpoint(folder / "checkpoint-epoch3.pth") for folder in (whole, part)
    )
    assert found["step"] == expected["step"] == 9
    assert all(torch.equal(expected["model"][k], found["model"][k]) for k in expected["model"])


# --- the reference --------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_stands_in_the_reference(section):
    reference = (ROOT / "docs" / "CONFIG.md").read_text()
    keys = set(SECTIONS[section].model_fields) - {"type", "args"}
    missing = [key for key in keys if not re.search(rf"`({section}\.)?{key}`", reference)]
    assert not missing
