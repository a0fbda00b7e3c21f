"""Finds what the project's own modules define, and what a library may without importing it."""

import importlib
import importlib.util
import inspect
import re
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from base.errors import ConfigError, ConfigIssue


def own_things(package: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, thing) for everything public that a package's modules define.

    Raises: ConfigError with one line for each of them that cannot be imported, and its cause.
    """
    modules, issues = _import_all(package)
    if issues:
        raise ConfigError(issues)
    for module in modules:
        for name, thing in vars(module).items():
            if name[:1] != "_" and getattr(thing, "__module__", None) == module.__name__:
                yield name, thing


@cache
def written_names(library: str) -> list[str]:
    """Return what the files of a library define: more than it offers, never less.

    Reading them takes some hundredths of a second, importing them a second or more.
    """
    files = [file for folder in _folders(library) for file in sorted(Path(folder).rglob("*.py"))]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return [name for text in texts for name in re.findall(r"^(?:class|def) (\w+)", text, re.M)]


def source_file(thing: Any) -> str:
    """Return the file that defines `thing`, relative to the working directory if below it."""
    try:
        return _shown(inspect.getsourcefile(thing) or "?")
    except TypeError:  # neither a class nor a function
        return "?"


@cache
def _import_all(package: str) -> tuple[list[ModuleType], list[ConfigIssue]]:
    """Import all modules of a package, if there is one; return also what is wrong in them."""
    modules, issues = [], []
    for folder in _folders(package):
        for file in sorted(Path(folder).rglob("*.py")):
            names = (package, *file.relative_to(folder).with_suffix("").parts)
            if not all(map(str.isidentifier, names)):
                continue  # such as .ipynb_checkpoints
            try:
                name = ".".join(names).removesuffix(".__init__")
                modules.append(importlib.import_module(name))
            except Exception as error:  # a module of the project may fail in any way
                issues.append(_import_issue(error, file, folder))
    return modules, issues


def _folders(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    return (spec and spec.submodule_search_locations) or []


def _import_issue(error: Exception, module: Path, folder: str) -> ConfigIssue:
    """Return the issue with its place: the last line below this folder that was run."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [(str(module), 1), *((frame.filename, frame.lineno) for frame in frames)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    file, line = [place for place in places if place[0].startswith(folder)][-1]
    cause = f"{type(error).__name__}: {getattr(error, 'msg', error)}"
    return ConfigIssue((), f"cannot be imported: {cause}", f"{_shown(file)}:{line}")


def _shown(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
