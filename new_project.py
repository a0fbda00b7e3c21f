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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
COPIED_AS = {"docs/PROJECT_README.md": "README.md"}
NOT_ENTERED = {"__pycache__", "data", "saved"}
# A folder that holds one of these is a project of its own.
PROJECT_MARKS = ("setup.cfg", "pyproject.toml", "train.py", ".git")

LONGEST_NAME = 64
# What Python looks up by name to run the project, beside the standard library: its own modules,
# its requirements, and what those import in turn.
MODULES = """
base configs data_loader docs logger make_data model new_project saved setup test tests train
trainer
hypothesis matplotlib numpy onnx onnxscript pandas pre_commit pydantic pytest pytest_cov pyyaml ruff
safetensors scikit_learn sklearn tensorboard torch torchmetrics torchvision tqdm typer yaml
_pytest absl annotated_types click contourpy coverage cycler dateutil filelock fsspec google grpc
jinja2 joblib kiwisolver lightning_utilities markdown markupsafe mpmath networkx packaging pil
pillow pip pluggy protobuf pydantic_core pygments pyparsing rich scipy setuptools shellingham six
sympy threadpoolctl torchgen triton typing_extensions typing_inspection werkzeug
"""
DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)


class ProjectError(Exception):
    """A project that cannot be created; its message is shown alone, on one line."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def check_name(name: str) -> None:
    """Raise ProjectError when `name` could not name a folder, a package or a run anywhere."""
    shown = repr(name if len(name) <= LONGEST_NAME else name[:20] + "...")
    module = name.replace("-", "_").lower()
    if name in ("", ".", ".."):
        raise ProjectError(f"{shown} is no name for a project: expected one such as my_project")
    if len(name) > LONGEST_NAME:
        raise ProjectError(f"{shown} is too long: a name has at most {LONGEST_NAME} characters")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?", name):
        raise ProjectError(
            f"{shown} is no name for a project: expected letters a-z and A-Z, digits, '_' and '-', "
            "with a letter or a digit first and last"
        )
    if keyword.iskeyword(name):
        raise ProjectError(f"{shown} is a keyword of Python: choose another name")
    if module in {known.lower() for known in (*MODULES.split(), *sys.stdlib_module_names)}:
        raise ProjectError(f"{shown} is also a module that Python imports: choose another name")
    if DEVICE.fullmatch(name):
        raise ProjectError(f"{shown} is a device on Windows: choose another name")


def check_target(target: Path, template: Path) -> None:
    """Raise ProjectError unless `target` is absent or an empty folder, outside what is copied."""
    if not os.path.isdir(target.parent):
        raise ProjectError(f"{str(target.parent)!r} is no folder: create it first")
    if os.path.islink(target):
        raise ProjectError(f"{str(target)!r} is a symbolic link: name the folder it should be")
    if os.path.lexists(target) and not (os.path.isdir(target) and _is_empty(target)):
        raise ProjectError(f"{str(target)!r} exists already: choose another name")
    parent = target.parent.resolve()
    if any(parent.is_relative_to(template / place) for place in (*REQUIRED, *OPTIONAL)):
        raise ProjectError(f"{str(target)!r} would lie inside the template's own code")


def _is_empty(folder: Path) -> bool:
    with cannot_write(folder), os.scandir(folder) as entries:
        return next(entries, None) is None


@contextmanager
def cannot_write(target: Path) -> Iterator[None]:
    """Turn a failure of the file system into a ProjectError that names `target`."""
    try:
        yield
    except OSError as error:
        raise ProjectError(f"{str(target)!r} cannot be created: {error}", exit_code=4) from error


def template_files(template: Path) -> list[Path]:
    """Return the files a project needs, relative to `template`; none lies behind a symbolic link.

    Raises:
        ProjectError: When a part that no project can do without is missing.
    """
    found: list[Path] = []
    for place in (*REQUIRED, *OPTIONAL):
        files = list(_plain_files(template / place))
        if not files and place in REQUIRED:
            raise ProjectError(f"the template is incomplete: it has no {place!r} in {template}")
        found += [file.relative_to(template) for file in files]
    return [file for file in found if file.as_posix() not in NOT_COPIED]


def _plain_files(place: Path) -> Iterator[Path]:
    """Yield `place` when it is a file, or the source files below it when it is a folder."""
    if place.resolve() != place:  # a symbolic link, or something behind one
        return
    if place.is_file():
        yield place
    elif place.is_dir():
        for child in sorted(place.iterdir()):
            if child.is_dir():
                if not _is_foreign(child):
                    yield from _plain_files(child)
            elif child.suffix in SUFFIXES:
                yield from _plain_files(child)


def _is_foreign(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.name in NOT_ENTERED
    return hidden or any(os.path.lexists(folder / mark) for mark in PROJECT_MARKS)


def create_project(
    target: Path, *, template: Path = TEMPLATE, check_stop: Callable[[], None] = lambda: None
) -> None:
    """Create the project `target`, whole or not at all: it is put together beside and then renamed.

    `check_stop` is called before each file and may raise.

    Raises:
        ProjectError: When the name, the place or the template does not serve, or, with exit code
            4, when the disk is full or the place cannot be written.
    """
    check_name(target.name)
    check_target(target, template)
    files = template_files(template)
    with (
        cannot_write(target),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch,
    ):
        project = Path(scratch, target.name)
        for file in files:
            check_stop()
            copy_file(template / file, project / COPIED_AS.get(file.as_posix(), file))
        set_name(project, target.name)
        check_stop()
        os.replace(project, target)


def copy_file(source: Path, copy: Path) -> None:
    """Copy a file's contents and whether it can be executed, but not who may write it."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, copy)
    copy.chmod(copy.stat().st_mode | source.stat().st_mode & 0o111)


def set_name(project: Path, name: str) -> None:
    """Write the project's name into its setup.cfg, its README and the names of its configs."""
    substitute(project / "setup.cfg", r"^name = .*$", f"name = {name}")
    substitute(project / "README.md", r"\{name\}", name, count=0)
    for config in (project / "configs").rglob("*"):
        if config.suffix in (".yaml", ".yml"):
            substitute(config, r"^(name:[ \t]*[\"']?)(?=\w)", rf"\g<1>{name}_")
        elif config.suffix == ".json":  # the first key: metrics further in have names too
            substitute(config, r"\A(\s*\{\s*\"name\"\s*:\s*\")", rf"\g<1>{name}_")


def substitute(path: Path, pattern: str, replacement: str, *, count: int = 1) -> None:
    """Replace the first `count` matches of `pattern` in a text file; a count of 0 means all."""
    text = path.read_bytes().decode()
    new_text = re.sub(pattern, replacement, text, count=count, flags=re.MULTILINE)
    path.write_bytes(new_text.encode())


@contextmanager
def held_signals() -> Iterator[Callable[[], None]]:
    """Hold back SIGINT and SIGTERM; the function given here raises ProjectError after one."""
    received: list[int] = []

    def check_stop() -> None:
        if received:
            raise ProjectError("stopped: nothing was created", exit_code=128 + received[0])

    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield check_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(
    path: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, or a path such as ../my_project.")
    ],
) -> None:
    """Create a project of your own from this template."""
    target = Path(path)
    try:
        with held_signals() as check_stop:
            create_project(target, check_stop=check_stop)
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
