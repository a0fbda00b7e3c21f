"""Finds what the project's own modules define, importing only those that a name needs."""

import importlib
import importlib.util
import re
import sys
import traceback
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from base.errors import ConfigIssue

DEFINITION = re.compile(r"""^(?:class|def) (\w+)|\bregister\(\s*["'](.+?)["']""", re.MULTILINE)


@dataclass(frozen=True)
class SourceFile:
    """A module of the project, which need not be imported to tell what it defines."""

    module: str
    path: Path
    package: Path  # the folder of its package

    @cached_property
    def names(self) -> set[str]:
        """The top-level classes and functions of its source, and what `register` is called with."""
        text = self.path.read_text(encoding="utf-8", errors="replace")
        return {defined or registered for defined, registered in DEFINITION.findall(text)}

    @cached_property
    def issue(self) -> ConfigIssue | None:
        """What keeps it from being imported, at the last line in its package that ran, or None."""
        try:
            importlib.import_module(self.module)
            return None
        except Exception as error:  # a module of the project may fail in any way
            frames = traceback.extract_tb(error.__traceback__)
            lines = [(str(self.path), 1), *((frame.filename, frame.lineno) for frame in frames)]
            if isinstance(error, SyntaxError):
                lines.append((error.filename or "", error.lineno))
            file, line = [line for line in lines if line[0].startswith(str(self.package))][-1]
            cause = f"{type(error).__name__}: {getattr(error, 'msg', error)}"
            return ConfigIssue((), f"cannot be imported: {cause}", f"{relative_path(file)}:{line}")

    @property
    def things(self) -> dict[str, Any]:
        """Everything public that it defines, by name; nothing where it cannot be imported."""
        members = {} if self.issue else vars(sys.modules[self.module])
        return {
            name: thing
            for name, thing in members.items()
            if name[:1] != "_" and getattr(thing, "__module__", None) == self.module
        }


@cache
def source_files(place: str) -> list[SourceFile]:
    """Return the modules of a place such as "model/**/*.py": a package and a pattern below it."""
    package, _, pattern = place.partition("/")
    spec = importlib.util.find_spec(package)
    files = []
    for folder in map(Path, spec.submodule_search_locations if spec else ()):
        for path in sorted(folder.glob(pattern)):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            if all(map(str.isidentifier, parts)):  # not so .ipynb_checkpoints
                files.append(SourceFile(".".join(parts).removesuffix(".__init__"), path, folder))
    return files


def source_of(thing: Any) -> str:
    """Return the file that defines a thing, "?" where there is none."""
    module = sys.modules.get(thing.__module__)
    return relative_path(getattr(module, "__file__", None) or "?")


def relative_path(file: str | Path) -> str:
    """Return a path relative to the working directory if it is below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
