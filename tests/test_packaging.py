"""The Makefile, the pins and the metadata agree with each other and say what is missing."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rooms import project_files, read_template

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirements(text):
    """Map the names in a list of requirements to what each demands."""
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "-r"))]
    return {canonicalize_name(req.name): req.specifier for req in map(Requirement, lines)}


def pins(name):
    return requirements((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("pinned", "section", "key"),
    [
        ("requirements.txt", "options", "install_requires"),
        ("requirements-dev.txt", "options.extras_require", "dev"),
    ],
)
def test_each_pin_lies_in_the_range_of_setup_cfg(setup_cfg, pinned, section, key):
    ranges = requirements(setup_cfg[section][key])
    versions = {name: str(pin).removeprefix("==") for name, pin in pins(pinned).items()}
    assert ranges.keys() == versions.keys()
    assert [name for name in ranges if versions[name] not in ranges[name]] == []


def test_development_needs_all_that_running_needs():
    lines = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    assert "-r requirements.txt" in lines


def test_nothing_is_installed_into_site_packages(setup_cfg):
    assert setup_cfg["options"]["packages"] == setup_cfg["options"]["py_modules"] == ""


def test_the_hook_checks_style_with_the_pinned_ruff():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (version,) = re.findall(r"ruff-pre-commit\n +rev: v([\d.]+)\n", hooks)
    assert version in pins("requirements-dev.txt")["ruff"]


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def make(tmp_path):
    """Run make in a folder of its own that has a Makefile, requirements and no environment yet."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.yaml").write_text("seed: 1\nname: my_digits # runs\n")
    outside = {key: value for key, value in os.environ.items() if "MAKE" not in key}

    def run(*arguments):
        return subprocess.run(
            ["make", *arguments],
            cwd=tmp_path,
            env=outside,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def fake_python(folder, script):
    path = folder / "fake_python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def fake_environment(folder):
    """An environment whose Python writes down what it is called with."""
    path = folder / ".venv" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\necho "$@" >> calls\n')
    path.chmod(0o755)


@needs_make
def test_make_alone_lists_the_commands(make):
    result = make()
    commands = [line.split()[1] for line in result.stdout.splitlines()]
    assert commands == [
        *("help", "demo", "test", "test-all", "test-faults", "test-halves", "style", "clean"),
    ]


@needs_make
def test_the_demo_trains_and_tests_the_run_of_its_config(make, tmp_path):
    fake_environment(tmp_path)
    assert make("demo").returncode == 0
    assert (tmp_path / "calls").read_text().splitlines() == [
        "-m pip --version",
        "-m pip --disable-pip-version-check install -r requirements.txt",
        "train.py -c digits.yaml",
        "test.py -r saved/my_digits",
    ]


@needs_make
def test_a_second_time_nothing_is_installed_until_the_pins_change(make, tmp_path):
    fake_environment(tmp_path)
    assert make("test").returncode == 0
    (tmp_path / "calls").write_text("")
    make("test")
    assert "pip" not in (tmp_path / "calls").read_text()
    later = (tmp_path / ".venv" / ".dev").stat().st_mtime + 10
    os.utime(tmp_path / "requirements-dev.txt", (later, later))
    make("test")
    assert "install --quiet -r requirements-dev.txt" in (tmp_path / "calls").read_text()


@needs_make
def test_the_quick_tests_leave_out_the_slow_ones_and_both_demand_coverage(make):
    quick, every, halves = (make("-n", f"test{kind}").stdout for kind in ("", "-all", "-halves"))
    assert "pytest --cov " in quick
    assert quick.endswith("--cov-fail-under=90\n")
    assert every.endswith('--cov-fail-under=90 -m ""\n')
    assert halves.count('pytest --cov --cov-report= -m ""') == 2
    assert "--fail-under=90\n" in halves


@needs_make
def test_the_tests_of_a_project_demand_no_coverage(make, tmp_path):
    files = project_files(read_template(ROOT), [], "my_project")
    (tmp_path / "Makefile").write_bytes(files["Makefile"])
    assert "pytest --cov " in make("-n", "test").stdout
    assert "fail-under" not in make("-n", "test-all").stdout


@needs_make
def test_an_old_python_is_refused_with_what_to_type(make, tmp_path):
    result = make("demo", fake_python(tmp_path, "exit 1"))
    assert result.returncode == 2
    assert "Python 3.11 or newer is needed, and '" in result.stderr
    assert "Name another: make PYTHON=python3.12" in result.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_a_python_that_is_not_there_is_refused_the_same_way(make, tmp_path):
    result = make("demo", f"PYTHON={tmp_path}/none")
    assert result.returncode == 2
    assert f"Python 3.11 or newer is needed, and '{tmp_path}/none' is not that." in result.stderr


@needs_make
def test_a_python_without_venv_is_answered_with_the_package_to_install(make, tmp_path):
    no_venv = f'case "$2" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac'
    result = make("demo", fake_python(tmp_path, no_venv))
    assert result.returncode == 2
    assert "sudo apt install python3-venv" in result.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_a_failed_installation_is_tried_again(make, tmp_path):
    fake_environment(tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    works = python.read_text()
    python.write_text('#!/bin/sh\ncase "$*" in *install*) exit 1;; esac\n')
    assert make("demo").returncode == 2
    python.write_text(works)
    assert make("demo").returncode == 0
    assert "install -r requirements.txt" in (tmp_path / "calls").read_text()


@needs_make
def test_clean_keeps_the_environment_the_data_and_the_runs(make, tmp_path):
    kept = {".venv/lib/__pycache__/a.pyc", "data/__pycache__/x", "saved/digits/1/config.yaml"}
    gone = {"model/__pycache__/model.pyc", ".coverage", ".coverage.host.1", ".ruff_cache/x"}
    for name in kept | gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert make("clean").returncode == 0
    assert {name for name in kept | gone if (tmp_path / name).exists()} == kept
