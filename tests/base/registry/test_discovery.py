"""A module that nothing names may be broken."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
POINTS = """
import torch
from torch.utils.data import TensorDataset

class Points(TensorDataset):
    def __init__(self):
        super().__init__(torch.arange(40.0).view(20, 2), torch.arange(20) % 2)
"""
CONFIG = {
    "name": "points",
    "device": "cpu",
    "dataset": "Points",
    "data_loader": {"args": {"batch_size": 4}},
    "model": {"type": "Linear", "args": [2, 2]},
    "loss": "cross_entropy",
    "optimizer": "SGD",
}


def test_a_config_is_checked_beside_rooms_that_cannot_be_imported(tmp_path):
    for package in ("base", "data_loader", "logger", "model", "trainer"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "train.py", tmp_path)
    rooms = [*tmp_path.glob("trainer/*/*.py"), *tmp_path.glob("logger/*/*.py")]
    for file in rooms:
        with file.open("a") as end:
            end.write("\nimport no_such_thing\n")
    (tmp_path / "data_loader" / "points.py").write_text(POINTS)
    (tmp_path / "points.json").write_text(json.dumps(CONFIG))
    command = [sys.executable, "train.py", "-c", "points.json", "--check"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
