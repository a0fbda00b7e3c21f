"""Create a project of your own from this template, or give it more rooms later.

python new_project.py ../my_project
python new_project.py ../my_project --with sweep,export
python new_project.py --list-rooms
python new_project.py ../my_project --add predict

A project gets the core and the starter rooms of `rooms.toml`, the rooms named and those that they
need; no data, no runs, no git history, and symbolic links never. The last part of the path is its
name. It becomes the name in `setup.cfg`, and goes in front of the name of every config, so that
runs of different projects can be told apart: `name: digits` turns into `name: my_project_digits`.
Its `.template.zip` holds its files as they were created, so that --add can tell what is changed.
"""

import json
import keyword
import os
import re
import shlex
import signal
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rooms import (
    KINDS,
    OPTIONAL,
    REQUIRED,
    ROOMS,
    Files,
    ProjectError,
    add_entries,
    choose_rooms,
    lies_in,
    list_rooms,
    only_rooms,
    project_files,
    read_rooms,
    read_template,
    split_names,
    version_of,
    with_needed,
)

TEMPLATE = Path(__file__).resolve().parent

RECORD = ".template.zip"  # in a project: its files as created, and where they come from
ORIGIN = "template.json"  # in the record: version and hash of the template, name and rooms

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d")  # on Windows


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


def write_file(path: Path, content: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_record(path: Path, files: Files, template: Files, rooms: list[str], name: str) -> None:
    """Write the record of a project: its files as created, and the origin of these."""
    origin = {**version_of(template), "name": name, "rooms": rooms}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as record:
        for file, content in {ORIGIN: json.dumps(origin, indent=1), **files}.items():
            record.writestr(zipfile.ZipInfo(file), content, zipfile.ZIP_DEFLATED)


# --- create and add -------------------------------------------------------------------------------


def create_project(target: Path, rooms: Iterable[str] = (), *, template: Path = TEMPLATE) -> None:
    """Create the project `target`, whole or not at all: it is put together beside and then renamed.

    Raises:
        ProjectError: the name, the place, a room or the template does not serve, or, with exit
            code 4, the disk is full or the place cannot be written.
    """
    check_name(target.name)
    try:
        check_target(target, template)
        source = read_template(template)
        chosen = choose_rooms(read_rooms(source), rooms)
        files = project_files(source, chosen, target.name)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            project = Path(scratch, target.name)
            for file, content in files.items():
                write_file(project / file, content)
            write_record(project / RECORD, files, source, chosen, target.name)
            os.replace(project, target)
    except OSError as error:
        raise ProjectError(f"{str(target)!r} cannot be created: {error}", exit_code=4) from error


def read_record(project: Path, source: Files) -> tuple[dict, Files]:
    """Return the origin of a project and its files as created.

    Raises:
        ProjectError: there is no record, or of another version of the template than `source`.
    """
    try:
        with zipfile.ZipFile(project / RECORD) as record:
            files = {file: record.read(file) for file in record.namelist()}
        origin = json.loads(files.pop(ORIGIN))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        why = "it has none" if isinstance(error, FileNotFoundError) else error
        raise ProjectError(f"{str(project)!r} is no project with a {RECORD}: {why}") from error
    here = version_of(source)
    if origin["hash"] != here["hash"]:
        made = f"{origin['version']} ({origin['hash'][:8]})"
        raise ProjectError(
            f"{str(project)!r} was made by version {made} of the template, "
            f"and this is {here['version']} ({here['hash'][:8]}): no room can be added"
        )
    return origin, files


def add_rooms(project: Path, rooms: Iterable[str], *, template: Path = TEMPLATE) -> list[str]:
    """Give a project more rooms, and return the files written.

    Raises:
        ProjectError: it was made by another version of this template, a file that has to be
            written was changed in it, a room is unknown, or (exit code 4) it cannot be written.
    """
    source = read_template(template)
    entries = read_rooms(source)
    added = with_needed(entries, rooms)
    origin, old = read_record(project, source)
    chosen = with_needed(entries, [*origin["rooms"], *added])
    new = project_files(source, chosen, origin["name"])
    own = [entries[room] for room in added]  # written again where they were deleted
    files = {
        file: content
        for file, content in new.items()
        if content != old.get(file) or any(lies_in(file, r, *KINDS) for r in own)
    }
    files[ROOMS] = new[ROOMS]
    try:
        present = {f: (project / f).read_bytes() for f in files if os.path.lexists(project / f)}
        for file in present.keys() - {ROOMS}:
            if present[file] not in (files[file], old.get(file)):
                raise ProjectError(f"{project / file} was changed: no room can be added over it")
        files[ROOMS] = add_entries(present.get(ROOMS, b""), only_rooms(new[ROOMS], added))
        files = {file: files[file] for file in files if files[file] != present.get(file)}
        with tempfile.TemporaryDirectory(dir=project, prefix=".rooms-") as scratch:
            for file, content in files.items():
                write_file(Path(scratch, file), content)
            write_record(Path(scratch, RECORD), new, source, chosen, origin["name"])
            for file in (*files, RECORD):
                (project / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(scratch, file), project / file)
    except OSError as error:
        raise ProjectError(f"{str(project)!r} cannot be written: {error}", exit_code=4) from error
    return sorted(files)


def add_and_report(path: str, rooms: list[str]) -> str:
    """Give a project more rooms, and return what was written and what to do next."""
    files = add_rooms(Path(path), rooms)
    lines = [*files, f"{path} has {', '.join(rooms)} {'now' if files else 'already'}"]
    if any(file.startswith("requirements") for file in files):
        install = ".venv/bin/python -m pip install -r requirements-dev.txt"
        lines += ["Next:", f"  cd {shlex.quote(path)}", f"  {install}"]
    return "\n".join(lines)


def stop(number: int, frame: FrameType | None) -> None:
    """End the command on a signal; what was put together so far is removed on the way."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second one would leave some of it
    raise ProjectError("stopped before the project was ready", exit_code=128 + number)


def main(
    path: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, or a path such as ../my_project.")
    ] = "",
    with_rooms: Annotated[
        str, typer.Option("--with", metavar="ROOMS", help="More rooms: sweep,export or all.")
    ] = "",
    add: Annotated[
        str, typer.Option("--add", metavar="ROOMS", help="Add rooms to the project NAME.")
    ] = "",
    list_only: Annotated[bool, typer.Option("--list-rooms", help="List the rooms.")] = False,
) -> None:
    """Create a project of your own from this template, or add rooms to one."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if list_only:
            return typer.echo(list_rooms(TEMPLATE))
        if add:
            return typer.echo(add_and_report(path, split_names(add)))
        if not Path(path).name:
            raise ProjectError("NAME is missing: its name, or a path such as ../my_project")
        create_project(Path(path), split_names(with_rooms))
    except ProjectError as error:
        typer.echo(error, err=True)
        raise typer.Exit(error.exit_code) from None
    typer.echo(
        f"{Path(path)} is ready. Next:\n"
        f"  cd {shlex.quote(path)}\n"
        "  make demo\n"
        "  .venv/bin/python train.py -c digits.yaml"
    )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    text = __doc__.replace("\n\n", "\n\n\b\n")  # keeps the lines
    app.command(help=text, context_settings={"help_option_names": ["-h", "--help"]})(main)
    app()
