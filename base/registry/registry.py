"""The names that one section of a config may use: the project's own first, then torch's."""

import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from base.errors import ConfigError, ConfigIssue, did_you_mean, format_value
from base.registry.discovery import SourceFile, library_names, relative_path, source_files

Predicate = Callable[[Any], bool]

log = logging.getLogger("train")


@dataclass
class Registry:
    """The names that a section of the config may use.

    The project's own are looked for in `places`: public things that a module there defines and
    `is_own` accepts, and what is registered anywhere. `namespaces` are modules of torch and its
    family, each with the kind of thing taken from it; one that is not imported yet is only for a
    name that its library's files define. `base` is what its classes derive from, if anything.
    `call_args` counts the leading arguments that a function gets when it is called, such as
    (output, target) of a loss.
    """

    section: str
    places: tuple[str, ...]
    is_own: Predicate = lambda thing: False
    namespaces: dict[str, Predicate] = field(default_factory=dict)
    base: type | None = None
    call_args: int = 0
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
        thing = self.lookup(name)
        if thing is None:
            files = self._files()
            thing = _only(name, (own := self._own(files)).get(name, []))
            if thing is None:
                unknown = f"unknown name {format_value(name)}{self._nearest(name, own)}"
                broken = [file.issue for file in files if file.issue]
                raise ConfigError([ConfigIssue((), unknown), *broken])
        return thing

    def lookup(self, name: str) -> Any | None:
        """Return what `name` stands for, None where no source says so; else as `find`."""
        files = [file for file in self._files() if name in file.names]
        if broken := [file.issue for file in files if file.issue]:
            raise ConfigError(broken)
        if (own := _only(name, self._own(files).get(name, []))) is not None:
            return own
        for namespace, accepts in self.namespaces.items():
            if namespace in sys.modules or name in library_names(_library(namespace)):
                thing = vars(importlib.import_module(namespace)).get(name)
                if not name.startswith("_") and accepts(thing):
                    return thing
        return None

    def knows(self, name: str) -> bool:
        """Tell whether `name` stands for something here, be it broken."""
        try:
            return self.lookup(name) is not None
        except ConfigError:
            return True

    def own(self) -> dict[str, Any]:
        """Return all of the project's own by name, with a warning of modules that are broken."""
        files = self._files()
        for file in files:
            if file.issue:
                _warn_once(str(file.issue))
        return {name: things[0] for name, things in self._own(files).items()}

    def names(self) -> dict[str, str]:
        """Return every name with where it comes from: a file of the project or a namespace."""
        own = {name: _source_file(thing) for name, thing in self.own().items()}
        return self._offered(self.namespaces) | own

    def _files(self) -> list[SourceFile]:
        return [file for place in self.places for file in source_files(place)]

    def _own(self, files: Iterable[SourceFile]) -> dict[str, list[Any]]:
        """Return what is registered, and else what files define, by name; two are a conflict."""
        defined = [pair for file in files for pair in file.things() if self.is_own(pair[1])]
        found = {name: [*things.values()] for name, things in self.registered.items()}
        known = [thing for things in found.values() for thing in things]
        for name, thing in defined:
            if thing not in known:
                found.setdefault(name, []).append(thing)
        return found

    def _offered(self, namespaces: Collection[str]) -> dict[str, str]:
        """Return what is taken of namespaces, by name; the first has the last word."""
        offered: dict[str, str] = {}
        for namespace in reversed([*namespaces]):
            members = vars(importlib.import_module(namespace)).items()
            accepts = self.namespaces[namespace]
            offered |= {name: namespace for name, x in members if name[0] != "_" and accepts(x)}
        return offered

    def _nearest(self, name: str, own: Collection[str]) -> str:
        """Return a hint at the nearest name, without importing a library that has none nearer."""
        loaded = [namespace for namespace in self.namespaces if namespace in sys.modules]
        libraries = {_library(namespace) for namespace in {*self.namespaces} - {*loaded}}
        written = [name for library in libraries for name in library_names(library)]
        known = [*own, *self._offered(loaded)]
        if (hint := _hint(name, known)) == _hint(name, written + known):
            return hint
        return _hint(name, [*own, *self._offered(self.namespaces)])


def _only(name: str, things: list[Any]) -> Any | None:
    if len(things) > 1:
        files = " and ".join(sorted({_source_file(thing) for thing in things}))
        raise ConfigError([ConfigIssue((), f"{name!r} is defined twice, in {files}; rename one")])
    return things[0] if things else None


def _source_file(thing: Any) -> str:
    try:
        return relative_path(inspect.getsourcefile(thing) or "?")
    except TypeError:  # neither a class nor a function
        return "?"


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _library(namespace: str) -> str:
    return namespace.partition(".")[0]


def _hint(name: str, names: Collection[str]) -> str:
    last = name.rpartition(".")[2]  # of a path only its end can be meant
    return did_you_mean(last, [last] if last in names else names if last == name else ())
