"""torchvision works beside a torch that its compiled operators were not built for."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from base.runtime import torchvision_ops


def has_operators() -> bool:
    return hasattr(torch.ops.torchvision, "nms")


class Declared:
    """Stands for torch.library.Library and remembers what it was told."""

    def __init__(self, namespace: str, kind: str) -> None:
        self.operators = []
        assert (namespace, kind) == ("torchvision", "DEF")

    def define(self, operator: str) -> None:
        self.operators.append(operator.partition("(")[0])


def test_where_the_operators_are_nothing_is_declared(monkeypatch):
    assert has_operators()  # sound, or declared when `base` was imported
    monkeypatch.setattr(torch.library, "Library", Declared)
    assert torchvision_ops.declare_missing_operators() is None


def test_where_they_are_missing_they_are_declared(monkeypatch):
    monkeypatch.setattr(torch.library, "Library", Declared)
    monkeypatch.setattr(torch.ops, "torchvision", object())
    monkeypatch.setattr(torch.ops, "load_library", lambda path: (_ for _ in ()).throw(OSError))
    assert torchvision_ops.declare_missing_operators().operators == ["nms", "qnms"]


@pytest.mark.parametrize("spec", [None, importlib.util.spec_from_loader("torchvision", None)])
def test_without_torchvision_there_is_nothing_to_do(monkeypatch, spec):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch.ops, "torchvision", object())
    assert torchvision_ops.declare_missing_operators() is None


def test_torchvision_works_in_a_new_process_and_in_the_workers_it_spawns(project_root, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import model.loss\n"
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "from torchvision.transforms import v2\n"
        "from base import BaseDataLoader\n"
        "if __name__ == '__main__':\n"
        "    data = TensorDataset(torch.rand(4, 3, 8, 8), torch.arange(4))\n"
        "    loader = BaseDataLoader(data, 4, shuffle=False, num_workers=1)\n"
        "    loader.multiprocessing_context = 'spawn'\n"
        "    flip = [v2.RandomHorizontalFlip(1.0)]\n"
        "    loader.prepare(flip, in_memory=False, device=torch.device('cpu'), training=True)\n"
        "    ((images, _),) = loader.batches(0, 1)\n"
        "    assert torch.equal(images, data.tensors[0].flip(-1))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(project_root)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
