"""What the names of one section of a config stand for: the project's own first, then torch's."""

import importlib
import logging
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from base.errors import ConfigError, ConfigIssue, did_you_mean, format_value
from base.registry.discovery import SourceFile, library_names, source_files, source_of

Predicate = Callable[[Any], bool]

warn_once = cache(logging.getLogger("train").warning)


@dataclass
class Registry:
    """The names that a section of the config may use.

    The project's own are what is registered, and what a module in `places` defines publicly and
    `is_own` accepts. `namespaces` are modules of torch and its family, each with the kind of thing
    taken from it; one that is not imported yet is only for a name that its library's files define.
    `base` is what its classes derive from, if they do. `call_args` counts the leading arguments
    that a function gets when it is called, such as (output, target) of a loss.
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
        if (thing := self.lookup(name)) is None:
            thing = self._lookup_own(name, self._files())  # what a module makes as it runs
        if thing is None:
            unknown = f"unknown name {format_value(name)}{self._nearest(name)}"
            broken = [file.issue for file in self._files() if file.issue]
            raise ConfigError([ConfigIssue((), unknown), *broken])
        return thing

    def lookup(self, name: str) -> Any | None:
        """Return what `name` stands for, None where no source says so; else as `find`."""
        files = [file for file in self._files() if name in file.names]
        if broken := [file.issue for file in files if file.issue]:
            raise ConfigError(broken)
        if (own := self._lookup_own(name, files)) is not None:
            return own
        for namespace, accepts in self.namespaces.items():
            if namespace in sys.modules or name in library_names(namespace):
                thing = vars(importlib.import_module(namespace)).get(name)
                if thing is not None and not name.startswith("_") and accepts(thing):
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
        for file in self._files():
            if file.issue:
                warn_once(str(file.issue))
        return {name: things[0] for name, things in self._own(self._files()).items()}

    def names(self) -> dict[str, str]:
        """Return every name with where it comes from: a file of the project or a namespace."""
        own = {name: source_of(thing) for name, thing in self.own().items()}
        return self._offered(self.namespaces) | own

    def _files(self) -> list[SourceFile]:
        return [file for place in self.places for file in source_files(place)]

    def _own(self, files: Iterable[SourceFile]) -> dict[str, list[Any]]:
        """Return what is registered, and what files define besides, by name."""
        found = {name: [*things.values()] for name, things in self.registered.items()}
        registered = [thing for things in found.values() for thing in things]
        for name, thing in (pair for file in files for pair in file.things()):
            if self.is_own(thing) and thing not in registered:
                found.setdefault(name, []).append(thing)
        return found

    def _lookup_own(self, name: str, files: Iterable[SourceFile]) -> Any | None:
        things = self._own(files).get(name, [])
        if len(things) > 1:
            places = " and ".join(sorted({source_of(thing) for thing in things}))
            message = f"{name!r} is defined twice, in {places}; rename one"
            raise ConfigError([ConfigIssue((), message)])
        return things[0] if things else None

    def _offered(self, namespaces: Iterable[str]) -> dict[str, str]:
        """Return the names of what is taken of namespaces, each with the first that has it."""
        offered: dict[str, str] = {}
        for space in namespaces:
            for name, thing in vars(importlib.import_module(space)).items():
                if name[0] != "_" and self.namespaces[space](thing):
                    offered.setdefault(name, space)
        return offered

    def _nearest(self, name: str) -> str:
        """Return a hint at the nearest name, without importing a library that has none nearer."""
        unread = [space for space in self.namespaces if space not in sys.modules]
        known = [*self._own(self._files()), *self._offered({*self.namespaces} - {*unread})]
        written = [name for space in unread for name in library_names(space)]
        last = name.rpartition(".")[2]  # of a path only its end can be meant
        if _hint(name, last, known) != _hint(name, last, written + known):
            known += self._offered(unread)
        return _hint(name, last, known)


def _hint(name: str, last: str, names: Collection[str]) -> str:
    return did_you_mean(last, [last] if last in names else names if last == name else ())
