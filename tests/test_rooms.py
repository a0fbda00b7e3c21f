"""Each room can be deleted: what is left imports, lists its names, and checks its configs.

Measured: each takes 3 s alone on two cores, half of it importing torch, in a process of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rooms import lies_in, read_rooms, read_template

ROOT = Path(__file__).resolve().parent.parent
FILES = read_template(ROOT)
ROOMS = read_rooms(FILES)
KINDS = ("code", "configs", "tests", "long_tests", "docs")

USE = """
import importlib, sys
from pathlib import Path

sys.path.insert(0, "")
from base.config.check import load_config
from base.errors import ConfigError
from base.registry import REGISTRIES

layers = ("base", "model", "data_loader", "logger", "trainer")
files = [file for layer in layers for file in sorted(Path(layer).rglob("*.py"))]
for file in [*files, *Path().glob("*.py")]:
    if "__main__" not in file.parts[-1]:
        importlib.import_module(".".join(file.with_suffix("").parts).removesuffix(".__init__"))
for registry in REGISTRIES.values():
    registry.own()
for path in sorted(Path("configs").glob("*.*")):
    try:
        load_config(path)
    except ConfigError as error:
        sys.exit(f"{path}: {error}")
"""


def without(rooms: set[str], folder: Path) -> Path:
    """Write the template without some rooms, and without those that need them, to a folder."""
    size = -1
    while size != len(rooms):
        size = len(rooms)
        rooms = rooms | {name for name in ROOMS if rooms & set(ROOMS[name].get("needs", ()))}
    for file, content in FILES.items():
        if not any(lies_in(file, ROOMS[name], *KINDS) for name in rooms):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTEST"))}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_a_copy_without_a_room_imports_lists_and_checks_what_is_left(room, tmp_path):
    result = run(without({room}, tmp_path), "-W", "error::UserWarning", "-c", USE)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "cannot be imported" not in result.stderr + result.stdout


def test_a_room_that_is_needed_takes_along_those_that_need_it(tmp_path):
    left = without({"find_lr"}, tmp_path)
    assert not (left / "trainer" / "find_lr").exists()
    assert not (left / "trainer" / "overfit").exists()
    assert (left / "trainer" / "folds").is_dir()


def test_what_still_names_a_deleted_room_is_seen(tmp_path):
    left = without({"digits"}, tmp_path)
    shutil.copy(ROOT / "configs" / "digits.yaml", left / "configs")
    result = run(left, "-c", USE)
    assert result.returncode == 1
    assert "unknown name 'Digits'" in result.stderr


@pytest.mark.slow
def test_the_core_passes_its_quick_tests_without_any_room(tmp_path):
    left = without(set(ROOMS), tmp_path)
    tests = [f"tests/{layer}" for layer in ("base", "model", "data_loader", "logger", "trainer")]
    there = [folder for folder in tests if any((left / folder).rglob("test_*.py"))]
    result = run(left, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *there)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-3000:]
