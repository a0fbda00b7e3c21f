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
    """A function that puts ten kinds of blots, 28 x 28, where torchvision looks for MNIST."""

    def write(root: Path) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        kinds = np.kron(rng.integers(0, 255, (10, 7, 7)), np.ones((4, 4)))  # (10, 28, 28)
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for name, count in (("train", 600), ("t10k", 200)):
            labels = (np.arange(count) % 10).astype(np.uint8)
            pixels = kinds[labels] * rng.uniform(0.5, 1, (count, 1, 1))
            pixels = (pixels + rng.uniform(0, 25, pixels.shape)).clip(0, 255).astype(np.uint8)
            header = struct.pack(">IIII", 0x803, *pixels.shape)
            (folder / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
            header = struct.pack(">II", 0x801, len(labels))
            (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())

    return write


@pytest.fixture(scope="session")
def work_folder(tmp_path_factory, write_small_mnist) -> Path:
    """A folder to run commands in that sees the project's files and its data, written nowhere else.

    In place of an MNIST that was not fetched there are blots, and what `make_data.py` writes.
    """
    folder = tmp_path_factory.mktemp("work")
    (folder / "data").mkdir()
    for path in [*ROOT.iterdir(), *(ROOT / "data").glob("*")]:
        if path.name[0] != "." and path.name not in ("data", "saved", "wandb"):
            (folder / path.relative_to(ROOT)).symlink_to(path)
    for name in ("MNIST", "FashionMNIST"):
        if not (folder / "data" / name).exists():
            write_small_mnist(folder / "blots" / name)
            (folder / "blots" / name / "MNIST").rename(folder / "data" / name)
    if (ROOT / "make_data.py").exists():
        import make_data

        for kind in make_data.CONFIGS:
            make_data.main(kind, folder / "data")
    return folder
