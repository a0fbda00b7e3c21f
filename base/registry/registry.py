"""What the names of one section of a config stand for: the project's own first, then torch's.

Sources are read before they are imported: a module that is broken stops only what names it.
"""

import importlib
import importlib.util
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from base.errors import ConfigError, ConfigIssue, did_you_mean, format_value

Predicate = Callable[[Any], bool]

DEFINITION = re.compile(r"""^(?:class|def) (\w+)|\bregister\(\s*["'](.+?)["']""", re.MULTILINE)
warn_once = cache(logging.getLogger("train").warning)


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
        except (Exception, SystemExit) as error:  # a module may fail in any way
            frames = traceback.extract_tb(error.__traceback__)
            lines = [(str(self.path), 1), *((frame.filename, frame.lineno) for frame in frames)]
            if isinstance(error, SyntaxError):
                lines.append((error.filename or "", error.lineno))
            file, line = [line for line in lines if line[0].startswith(str(self.package))][-1]
            cause = f"{type(error).__name__}: {getattr(error, 'msg', error)}"
            where = f"{os.path.relpath(file)}:{line}"
            return ConfigIssue((), f"cannot be imported: {cause}", where)

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
def _source_files(place: str) -> list[SourceFile]:
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


@dataclass
class Registry:
    """The names that a section of the config may use.

    The project's own are what is registered, and what a module in `places` defines publicly and
    `is_own` accepts. `namespaces` are modules of torch and its family, each with the kind of thing
    taken from it; they are imported in turn until one has the name. `base` is what its classes
    derive from, if they do. `call_args` counts the leading arguments that a function gets when it
    is called, such as (output, target) of a loss.
    """

    section: str
    places: Collection[str]
    is_own: Predicate = lambda thing: False
    namespaces: dict[str, Predicate] = field(default_factory=dict)
    call_args: int = 0
    base: type | None = None
    registered: dict[str, dict[str, Any]] = field(default_factory=dict)

    def register(self, name: str | None = None) -> Callable[[Any], Any]:
        """Decorate a class or function to make it known here, under `name` or its own name."""

        def remember(thing: Any) -> Any:
            # by its place in the code, so that a module that is run again replaces its own
            place = f"{thing.__module__}.{getattr(thing, '__qualname__', '')}"
            self.registered.setdefault(name or thing.__name__, {})[place] = thing
            return thing

        return remember

    def find(self, name: str) -> Any:
        """Return what `name` stands for.

        Raises:
            ConfigError: the name is unknown or stands for two things of the project, or a module
                that may define it cannot be imported.
        """
        files = self._files()
        likely = [file for file in files if name in file.names]
        if broken := [file.issue for file in likely if file.issue]:
            raise ConfigError(broken)
        # all files at last, as a module may make things as it runs
        things = self._own(likely).get(name) or self._of_library(name) or self._own(files).get(name)
        if not things:
            issue = ConfigIssue((), f"unknown name {format_value(name)}{self._nearest(name)}")
            raise ConfigError([issue, *(file.issue for file in files if file.issue)])
        if len(things) > 1:
            places = " and ".join(sorted({*map(_source_of, things)}))
            message = f"{name!r} is defined twice, in {places}; rename one"
            raise ConfigError([ConfigIssue((), message)])
        return things[0]

    def knows(self, name: str) -> bool:
        """Tell whether `name` stands for something here."""
        try:
            self.find(name)
        except ConfigError:
            return False
        return True

    def own(self) -> dict[str, Any]:
        """Return all of the project's own by name, with a warning of modules that are broken."""
        for file in self._files():
            if file.issue:
                warn_once(str(file.issue))
        return {name: things[0] for name, things in self._own(self._files()).items()}

    def names(self) -> dict[str, str]:
        """Return every name with where it comes from: a file of the project or a namespace."""
        return self._sources() | {name: _source_of(thing) for name, thing in self.own().items()}

    def _files(self) -> list[SourceFile]:
        return [file for place in self.places for file in _source_files(place)]

    def _own(self, files: Iterable[SourceFile]) -> dict[str, list[Any]]:
        """Return what is registered, and what files define besides, by name."""
        defined = [item for file in files for item in file.things.items()]  # its import registers
        found = {name: [*things.values()] for name, things in self.registered.items()}
        registered = [thing for things in found.values() for thing in things]
        for name, thing in defined:
            if self.is_own(thing) and thing not in registered:
                found.setdefault(name, []).append(thing)
        return found

    def _of_library(self, name: str) -> list[Any]:
        """Return what a library offers under a name, if one does."""
        for namespace, accepts in self.namespaces.items():
            if name in (offered := _offered(namespace, accepts)):
                return [offered[name]]
        return []

    def _nearest(self, name: str) -> str:
        known = {*self._own(self._files()), *self._sources()}
        last = name.rpartition(".")[2]  # of a dotted path only the end can be meant
        return did_you_mean(last, known) if last == name or last in known else ""

    def _sources(self) -> dict[str, str]:
        """Return the names of libraries, each with the first namespace that offers it."""
        spaces = reversed(self.namespaces.items())
        return {name: space for space, accepts in spaces for name in _offered(space, accepts)}


@cache
def _offered(namespace: str, accepts: Predicate) -> dict[str, Any]:
    """Return what is taken from a module of a library, by name."""
    things = vars(importlib.import_module(namespace)).items()
    return {name: thing for name, thing in things if name[0] != "_" and accepts(thing)}


def _source_of(thing: Any) -> str:
    """Return the file that defines a thing, "?" where there is none."""
    module = sys.modules.get(thing.__module__)
    return os.path.relpath(getattr(module, "__file__", None) or "?")
