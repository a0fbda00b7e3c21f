"""What a project gets of this template: the core, its rooms, their tests and requirements.

Read by `new_project.py` alone; a project does not hold this file.
"""

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

REQUIRED = (
    *("base", "model", "data_loader", "logger", "trainer", "configs", "train.py", "test.py"),
    *("setup.cfg", "rooms.toml", "docs/PROJECT_README.md"),
)
OPTIONAL = (
    *("make_data.py", "tests", ".github", "docs/CONFIG.md", "Makefile", "LICENSE", ".gitignore"),
    *("pyproject.toml", "requirements.txt", "requirements-dev.txt"),
)
ROOMS = "rooms.toml"
KINDS = ("code", "configs", "tests", "docs")  # of the files that a room lists
TEMPLATE_ONLY = {"pre-commit"}  # requirements of what no project gets
SUFFIXES = {".py", ".yaml", ".yml", ".json", ".md", ".txt", ".csv"}
NOT_ENTERED = re.compile(r"\..*|__pycache__|saved")
CONFIG_NAME = rb"(\A\s*\{\s*\"name\"\s*:\s*\"|^name:[ \t]*[\"']?)(?=\w)"  # in JSON the first key

Files = dict[str, bytes]  # contents by path


class ProjectError(Exception):
    """A project that cannot be created; its message is shown alone, on one line."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def read_template(template: Path) -> Files:
    """Return all files that a project may get; none lies behind a symbolic link.

    Raises:
        ProjectError: a part that no project can do without is missing.
    """
    found: Files = {}
    for place in (*REQUIRED, *OPTIONAL):
        top = template / place
        files = {
            path.relative_to(template).as_posix(): path.read_bytes()
            for path in sorted(top.rglob("*") if top.is_dir() else [top])
            if path.is_file() and path.resolve() == path
            if path == top or path.suffix in SUFFIXES
            if not any(map(NOT_ENTERED.fullmatch, path.relative_to(top).parts))
        }
        if not files and place in REQUIRED:
            raise ProjectError(f"the template is incomplete: it has no {place!r} in {template}")
        found |= files
    return found


def version_of(template: Files) -> dict[str, str]:
    """Return the template's version and the hash of all that a project may get of it."""
    version = re.search(rb"(?m)^version = (.*)$", template["setup.cfg"])
    digest = hashlib.sha256(repr(sorted(template.items())).encode()).hexdigest()
    return {"version": version[1].decode() if version else "", "hash": digest}


def read_rooms(files: Files) -> dict[str, dict[str, Any]]:
    """Return the entries of `rooms.toml` by room."""
    return tomllib.loads(files[ROOMS].decode())


def lies_in(file: str, room: Mapping[str, Any], *kinds: str) -> bool:
    """Tell whether a file is among those that a room lists as code, configs, tests or docs."""
    places = chain.from_iterable(room.get(kind, ()) for kind in kinds)
    return any(file == place or (place[-1] == "/" and file.startswith(place)) for place in places)


def choose_rooms(rooms: Mapping[str, Mapping], asked: Iterable[str]) -> list[str]:
    """Return the starter rooms, those asked for, and what these need, in the order of `rooms`.

    Raises:
        ProjectError: there is no room of that name.
    """
    starters = [name for name in rooms if rooms[name].get("starter")]
    return with_needed(rooms, [*starters, *asked])


def with_needed(rooms: Mapping[str, Mapping], asked: Iterable[str]) -> list[str]:
    """Return the rooms asked for, where "all" is every one, and what they need.

    Raises:
        ProjectError: there is no room of that name.
    """
    waiting, chosen = list(asked), set()
    while waiting:
        name = waiting.pop()
        if name == "all":
            waiting += rooms
        elif name not in rooms:
            near = difflib.get_close_matches(name, rooms, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ProjectError(f"no room {name!r}{hint}; --list-rooms lists them")
        elif name not in chosen:
            chosen.add(name)
            waiting += rooms[name].get("needs", ())
    return [name for name in rooms if name in chosen]


def split_names(text: str) -> list[str]:
    """Return the names in `text`, which commas or blanks separate."""
    return text.replace(",", " ").split()


def list_rooms(template: Path) -> str:
    """Return a line for each room: its name, its lines of Python, and what it is for."""
    files = read_template(template)
    lines = []
    for name, room in read_rooms(files).items():
        code = [text for file, text in files.items() if lies_in(file, room, "code")]
        size = sum(len(text.splitlines()) for text in code)
        mark = "*" if room.get("starter") else " "
        lines.append(f"{mark} {name:<12}{size:>5} lines  {room['about']}")
    return "\n".join([*lines, "* comes with every project"])


# --- the files of a project -----------------------------------------------------------------------


def project_files(template: Files, rooms: list[str], name: str) -> Files:
    """Return the files of a project of that name with these rooms, as they are created."""
    entries = read_rooms(template)
    absent = [entries[room] for room in entries if room not in rooms]
    tests = [f for f in template if any(lies_in(f, entries[room], "tests") for room in rooms)]
    files: Files = {}
    for file, content in template.items():
        if any(lies_in(file, room, "code", "configs", "docs") for room in absent):
            continue
        if file.startswith("tests/project/"):
            file = file.replace("/project", "", 1)
        elif file.startswith("tests/") and file not in tests:
            folder = file.removesuffix("conftest.py")
            if folder == file or not any(test.startswith(folder) for test in (*tests, "tests/")):
                continue
        files[file] = content
    files["README.md"] = files.pop("docs/PROJECT_README.md")
    wanted = set(chain.from_iterable(entries[room].get("pip", ()) for room in rooms))
    unwanted = set(chain.from_iterable(room.get("pip", ()) for room in absent)) - wanted
    unwanted |= TEMPLATE_ONLY
    for file in files.keys() & {"setup.cfg", "requirements.txt", "requirements-dev.txt"}:
        files[file] = without_requirements(files[file], unwanted)
    files[ROOMS] = only_rooms(files[ROOMS], rooms)
    if "Makefile" in files:  # what only the template's own tests are for
        files["Makefile"] = re.sub(
            rb"^# template only\n.*?^# end\n\n?", b"", files["Makefile"], flags=re.M | re.S
        )
    set_name(files, name)
    return files


def without_requirements(content: bytes, names: Iterable[str]) -> bytes:
    """Return a list of requirements without those of `names`, and without extras left empty."""
    for name in names:
        content = re.sub(rb"^ *%b *[=><].*\n" % re.escape(name.encode()), b"", content, flags=re.M)
    start, extras, rest = content.partition(b"[options.extras_require]\n")
    return start + extras + re.sub(rb"^\w+ =\n(?! )", b"", rest, flags=re.M)


def only_rooms(content: bytes, rooms: Iterable[str]) -> bytes:
    """Return `rooms.toml` with its first comment and the entries of these rooms."""
    content = re.sub(rb"(?m)^(# )?long_tests .*\n", b"", content)  # these stay in the template
    head, *entries = content.split(b"\n[")
    kept = [entry for entry in entries if entry.partition(b"]")[0].decode() in rooms]
    return b"\n[".join([head, *kept])


def add_entries(content: bytes, more: bytes) -> bytes:
    """Return `rooms.toml` with the entries of another that it lacks, at its end."""
    head, *entries = more.split(b"\n[")
    missing = [e for e in entries if b"\n[%b]" % e.partition(b"]")[0] not in content]
    return b"\n[".join([content or head, *missing])


def set_name(files: Files, name: str) -> None:
    """Write the project's name into its setup.cfg, its README and the names of its configs."""
    new = name.encode()
    files["setup.cfg"] = re.sub(rb"(?m)^name = .*$", b"name = " + new, files["setup.cfg"], count=1)
    files["README.md"] = files["README.md"].replace(b"{name}", new)
    for file in files:
        if file.startswith("configs/"):
            files[file] = re.sub(CONFIG_NAME, rb"\g<1>%b_" % new, files[file], count=1, flags=re.M)
