"""Every shipped config says how it did, and every key stands in the reference."""

import re
from pathlib import Path

import pytest

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


YAMLS = [path for path in CONFIGS if path.suffix == ".yaml"]


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.name)
def test_a_yaml_opens_with_its_command_and_its_result(path):
    command, result = path.read_text().splitlines()[:2]
    assert command == f"# python train.py -c {path.name}"
    assert re.fullmatch(r"# hardware: .+  time: .+  score: .+", result)


# --- the reference --------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_stands_in_the_reference(section):
    reference = (ROOT / "docs" / "CONFIG.md").read_text()
    keys = set(SECTIONS[section].model_fields) - {"type", "args"}
    missing = [key for key in keys if not re.search(rf"`({section}\.)?{key}`", reference)]
    assert not missing
