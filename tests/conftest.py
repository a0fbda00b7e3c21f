"""What every test can count on: the project's root is importable, and small data to train on."""

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Tiny models gain nothing from threads, which on a busy machine wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

import base  # noqa: E402, F401  a test may import torchvision; see base.runtime.torchvision_ops


@pytest.fixture
def project_root() -> Path:
    """The folder that holds train.py."""
    return ROOT


@pytest.fixture(scope="session")
def turn_off_optional_writers() -> Callable[[pytest.MonkeyPatch], None]:
    """A function that leaves only the core's writers on by default, as drawing takes its time."""

    def turn_off(patch: pytest.MonkeyPatch) -> None:
        from base.registry import WRITERS

        for name, writer in WRITERS.own().items():
            if name not in ("csv", "tensorboard"):
                patch.setattr(writer, "on_by_default", False)

    return turn_off


@pytest.fixture
def core_writers_only(turn_off_optional_writers, monkeypatch) -> None:
    """Leave only the core's writers on by default."""
    turn_off_optional_writers(monkeypatch)


@pytest.fixture(scope="session")
def write_small_mnist() -> Callable[[Path], None]:
    """A function that puts the digits, enlarged to 28 x 28, where torchvision looks for MNIST."""

    def write(root: Path) -> None:
        import numpy as np
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.kron(digits.images * 15.9, np.ones((3, 3))).astype(np.uint8)  # (N, 24, 24)
        images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for name, part in (("train", slice(0, 600)), ("t10k", slice(600, 800))):
            pixels, labels = images[part], digits.target[part].astype(np.uint8)
            header = struct.pack(">IIII", 0x803, *pixels.shape)
            (folder / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
            header = struct.pack(">II", 0x801, len(labels))
            (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())

    return write
