"""Finds what the project's own modules define, importing only those that a name needs."""

import ast
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from base.errors import ConfigIssue

DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class SourceFile:
    """A module of the project, which need not be imported to tell what it defines."""

    module: str
    path: Path
    folder: Path  # of its package

    @cached_property
    def names(self) -> set[str]:
        """The top-level classes and functions of its source, and what `register` is called with."""
        text = self.path.read_text(encoding="utf-8", errors="replace")
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return set(DEFINITION.findall(text))
        kinds = ast.ClassDef | ast.FunctionDef
        names = {node.name for node in tree.body if isinstance(node, kinds)}
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(attr="register"), args=[ast.Constant(value=name)]):
                    names.add(name)
        return names

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
            file, line = [line for line in lines if line[0].startswith(str(self.folder))][-1]
            cause = f"{type(error).__name__}: {getattr(error, 'msg', error)}"
            where = f"{relative_path(file)}:{line}"
            return ConfigIssue((), f"cannot be imported: {cause}", where)

    def things(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, thing) for everything public that it defines, if it can be imported."""
        if self.issue is None:
            for name, thing in vars(sys.modules[self.module]).items():
                if name[:1] != "_" and getattr(thing, "__module__", None) == self.module:
                    yield name, thing


@cache
def source_files(place: str) -> list[SourceFile]:
    """Return the modules of a place such as "model/**/*.py": a package and a pattern below it."""
    package, _, pattern = place.partition("/")
    files = []
    for folder in map(Path, _folders(package)):
        for path in sorted(folder.glob(pattern)):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            if all(map(str.isidentifier, parts)):  # not so .ipynb_checkpoints
                files.append(SourceFile(".".join(parts).removesuffix(".__init__"), path, folder))
    return files


@cache
def library_names(namespace: str) -> list[str]:
    """Return what the files of a namespace's library define: more than it offers, never less.

    Reading them takes some hundredths of a second, importing them a second or more.
    """
    folders = map(Path, _folders(namespace.partition(".")[0]))
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return [name for text in texts for name in DEFINITION.findall(text)]


def source_of(thing: Any) -> str:
    """Return the file that defines a thing, "?" where there is none."""
    module = sys.modules.get(thing.__module__)
    return relative_path(getattr(module, "__file__", None) or "?")


def relative_path(file: str | Path) -> str:
    """Return a path relative to the working directory if it is below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _folders(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    return (spec and spec.submodule_search_locations) or []
