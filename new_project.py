"""Create a project of your own from this template: `python new_project.py ../my_project`.

The new project gets the code, configs, tests and tools of the template and a README of its own;
no data, no runs, no git history. Only what is listed here is copied, symbolic links never.

The last part of the path is the project's name. It becomes the name in `setup.cfg`, and goes in
front of the name of every config, so that runs of different projects can be told apart when they
are looked at together: `name: digits` turns into `name: my_project_digits`, whose runs lie in
`saved/my_project_digits/`.
"""

import keyword
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

TEMPLATE = Path(__file__).resolve().parent

REQUIRED = (
    *("base", "model", "data_loader", "logger", "trainer", "configs"),
    *("train.py", "test.py", "setup.cfg", "docs/PROJECT_README.md"),
)
OPTIONAL = (
    *("make_data.py", "tests", ".github", ".ci/run", "docs/CONFIG.md", "Makefile", "LICENSE"),
    *("pyproject.toml", "requirements.txt", "requirements-dev.txt", ".gitignore"),
    ".pre-commit-config.yaml",
)
SUFFIXES = {".py", ".yaml", ".yml", ".json", ".md", ".txt", ".csv"}
NOT_COPIED = {"tests/test_new_project.py"}
NOT_ENTERED = re.compile(r"\..*|__pycache__|data|saved")
COPIED_AS = {"docs/PROJECT_README.md": "README.md"}

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d")  # on Windows


class ProjectError(Exception):
    """A project that cannot be created; its message is shown alone, on one line."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def check_name(name: str) -> None:
    """Raise ProjectError when `name` could not name a folder, a package or a run anywhere."""
    shown = repr(name if len(name) <= 64 else name[:20] + "...")
    if not NAME.fullmatch(name):
        raise ProjectError(
            f"{shown} is no name for a project: expected 1 to 64 letters a-z and A-Z, digits, '_' "
            "and '-', with a letter or a digit first and last"
        )
    packages = packages_distributions()
    own = [Path(place).stem for place in (*REQUIRED, *OPTIONAL, __file__)]
    known = chain(keyword.kwlist, sys.stdlib_module_names, packages, *packages.values(), own)
    word = name.replace("-", "_").lower()
    if DEVICE.fullmatch(word) or word in {str(k).replace("-", "_").lower() for k in known}:
        raise ProjectError(f"{shown} is also a keyword, module or device: choose another name")


def check_target(target: Path, template: Path) -> None:
    """Raise ProjectError unless `target` is absent or an empty folder, outside what is copied."""
    if not os.path.isdir(target.parent):
        raise ProjectError(f"{str(target.parent)!r} is no folder: create it first")
    is_free = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    if os.path.lexists(target) and not is_free:
        raise ProjectError(f"{str(target)!r} exists already: choose another name")
    parent = target.parent.resolve()
    if any(parent.is_relative_to(template / place) for place in (*REQUIRED, *OPTIONAL)):
        raise ProjectError(f"{str(target)!r} would lie inside the template's own code")


def template_files(template: Path) -> list[Path]:
    """Return the files a project needs, relative to `template`; none lies behind a symbolic link.

    Raises:
        ProjectError: a part that no project can do without is missing.
    """
    found: list[Path] = []
    for place in (*REQUIRED, *OPTIONAL):
        top = template / place
        files = [
            path.relative_to(template)
            for path in (top.rglob("*") if top.is_dir() else [top])
            if path.is_file() and path.resolve() == path
            if path == top or path.suffix in SUFFIXES
            if not any(map(NOT_ENTERED.fullmatch, path.relative_to(top).parts))
        ]
        if not files and place in REQUIRED:
            raise ProjectError(f"the template is incomplete: it has no {place!r} in {template}")
        found += files
    return [file for file in found if file.as_posix() not in NOT_COPIED]


def create_project(target: Path, *, template: Path = TEMPLATE) -> None:
    """Create the project `target`, whole or not at all: it is put together beside and then renamed.

    Raises:
        ProjectError: the name, the place or the template does not serve, or, with exit code 4, the
            disk is full or the place cannot be written.
    """
    check_name(target.name)
    try:
        check_target(target, template)
        files = template_files(template)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            project = Path(scratch, target.name)
            for file in files:
                copy_file(template / file, project / COPIED_AS.get(file.as_posix(), file))
            set_name(project, target.name)
            os.replace(project, target)
    except OSError as error:
        raise ProjectError(f"{str(target)!r} cannot be created: {error}", exit_code=4) from error


def copy_file(source: Path, copy: Path) -> None:
    """Copy a file's contents and whether it can be executed, but not who may write it."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, copy)
    copy.chmod(copy.stat().st_mode | source.stat().st_mode & 0o111)


def set_name(project: Path, name: str) -> None:
    """Write the project's name into its setup.cfg, its README and the names of its configs."""
    substitute(project / "setup.cfg", r"^name = .*$", f"name = {name}")
    substitute(project / "README.md", r"\{name\}", name, count=0)
    # in JSON only the first key: metrics further in have names too
    key = r"(\A\s*\{\s*\"name\"\s*:\s*\"|^name:[ \t]*[\"']?)(?=\w)"
    for config in (project / "configs").rglob("*"):
        if config.suffix in (".yaml", ".yml", ".json"):
            substitute(config, key, rf"\g<1>{name}_")


def substitute(path: Path, pattern: str, replacement: str, *, count: int = 1) -> None:
    """Replace the first `count` matches of `pattern` in a text file; a count of 0 means all."""
    text = path.read_bytes().decode()
    new_text = re.sub(pattern, replacement, text, count=count, flags=re.MULTILINE)
    path.write_bytes(new_text.encode())


def stop(number: int, frame: FrameType | None) -> None:
    """End the command on a signal; what was put together so far is removed on the way."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second one would leave some of it
    raise ProjectError("stopped before the project was ready", exit_code=128 + number)


def main(
    path: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, or a path such as ../my_project.")
    ],
) -> None:
    """Create a project of your own from this template."""
    target = Path(path)
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        create_project(target)
    except ProjectError as error:
        typer.echo(error, err=True)
        raise typer.Exit(error.exit_code) from None
    typer.echo(
        f"{target} is ready. Next:\n"
        f"  cd {shlex.quote(path)}\n"
        "  make demo\n"
        "  .venv/bin/python train.py -c digits.yaml"
    )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
