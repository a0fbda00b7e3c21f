"""Names to things: what a config may name, the project's own first, then torch's, by section."""

import importlib
import inspect
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from base.base_data_loader import BaseDataLoader
from base.base_trainer import BaseTrainer
from base.callback import Callback
from base.data.order import SampleOrder
from base.errors import UserError, did_you_mean, format_value
from base.registry.discovery import own_things, source_file, written_names

Predicate = Callable[[Any], bool]


class NameLookupError(UserError):
    """A name that a section of the config cannot use; the message says why."""


@dataclass
class Registry:
    """The names one section of a config may use.

    `packages` are searched for the project's own: public things that a module defines and `is_own`
    accepts. `namespaces` are modules of torch and its family, each with the kind of thing taken
    from it; one that is not imported yet is only for a name that its library's files define.
    `call_args` counts the leading arguments that a function gets when it is called, such as
    (output, target) of a loss.
    """

    section: str
    packages: tuple[str, ...]
    is_own: Predicate = lambda thing: False
    namespaces: dict[str, Predicate] = field(default_factory=dict)
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

    def own(self) -> dict[str, list[Any]]:
        """Return the project's own things by name; more than one under a name is a conflict."""
        found: dict[str, list[Any]] = {}
        for package in self.packages:
            for name, thing in own_things(package):
                if self.is_own(thing):
                    found.setdefault(name, []).append(thing)
        for name, things in self.registered.items():
            known = found.setdefault(name, [])
            known += [thing for thing in things.values() if thing not in known]
        return found

    def find(self, name: str) -> Any:
        """Return what `name` stands for.

        Raises:
            NameLookupError: the name is unknown, or stands for two things of the project.
            ConfigError: a module of the section's packages cannot be imported.
        """
        own = self.own().get(name, [])
        if len(own) > 1:
            files = " and ".join(sorted({source_file(thing) for thing in own}))
            raise NameLookupError(f"{name!r} is defined twice, in {files}; rename one")
        if own:
            return own[0]
        for namespace, accepts in self.namespaces.items():
            if namespace in sys.modules or name in written_names(_library(namespace)):
                thing = vars(importlib.import_module(namespace)).get(name)
                if not name.startswith("_") and accepts(thing):
                    return thing
        raise NameLookupError(f"unknown name {format_value(name)}{self._nearest(name)}")

    def names(self, *, imported_only: bool = False) -> dict[str, str]:
        """Return every name with where it comes from: a file of the project or a namespace."""
        sources: dict[str, str] = {}
        for namespace, accepts in reversed(self.namespaces.items()):
            if imported_only and namespace not in sys.modules:
                continue
            members = vars(importlib.import_module(namespace)).items()
            sources |= {n: namespace for n, thing in members if n[0] != "_" and accepts(thing)}
        return sources | {name: source_file(things[0]) for name, things in self.own().items()}

    def _nearest(self, name: str) -> str:
        """Return a hint at the nearest name, without importing a library that has none nearer."""
        known = [*self.names(imported_only=True)]
        unread = {_library(space) for space in self.namespaces if space not in sys.modules}
        written = [name for library in unread for name in written_names(library)]
        hint = _hint(name, known)
        return hint if _hint(name, written + known) == hint else _hint(name, self.names())


def _library(namespace: str) -> str:
    return namespace.partition(".")[0]


def _hint(name: str, names: Collection[str]) -> str:
    last = name.rpartition(".")[2]  # of a path only its end can be meant
    return did_you_mean(last, [last] if last in names else names if last == name else ())


# --- kinds of things ----------------------------------------------------------------------------


def _class_of(base: type) -> Predicate:
    return lambda thing: inspect.isclass(thing) and issubclass(thing, base) and thing is not base


def _function(accepts: Callable[[str], bool]) -> Predicate:
    return lambda thing: inspect.isfunction(thing) and accepts(thing.__name__)


def _is_in_files(*stems: str) -> Predicate:
    return lambda thing: (
        thing.__module__.rpartition(".")[2].startswith(stems)
        and (inspect.isfunction(thing) or inspect.isclass(thing))
    )


_is_model = _class_of(torch.nn.Module)
_is_loss_or_metric = _is_in_files("loss", "metric")


def _builds_model(thing: Any) -> bool:
    return inspect.isfunction(thing) and _is_model(inspect.signature(thing).return_annotation)


def _is_loss_class(thing: Any) -> bool:
    return _is_model(thing) and thing.__name__.endswith("Loss")


def _is_loss_function(thing: Any) -> bool:
    try:
        return inspect.isroutine(thing) and "reduction" in inspect.signature(thing).parameters
    except ValueError:  # a builtin that does not tell
        return False


def _is_metric(thing: Any) -> bool:
    bases = thing.__mro__[1:] if inspect.isclass(thing) else ()
    return "torchmetrics.metric.Metric" in {f"{b.__module__}.{b.__name__}" for b in bases}


# --- the sections -------------------------------------------------------------------------------


def _of_classes(section: str, packages: tuple[str, ...], base: type, *namespaces: str) -> Registry:
    """Return a section of the subclasses of `base`, the project's own and those of namespaces."""
    return Registry(section, packages, _class_of(base), dict.fromkeys(namespaces, _class_of(base)))


TORCHMETRICS = ("", ".classification", ".regression", ".text", ".image", ".audio", ".retrieval")
DATA, MODEL, TRAINER = ("data_loader",), ("model",), ("trainer",)

DATASETS = _of_classes("datasets", DATA, Dataset, "torchvision.datasets")
DATA_LOADERS = _of_classes("data_loaders", DATA, BaseDataLoader)
DATA_LOADERS.register()(BaseDataLoader)
TRANSFORMS = Registry("transforms", DATA, namespaces={"torchvision.transforms.v2": _is_model})
SAMPLERS = _of_classes("samplers", DATA, SampleOrder)  # torch's cannot be resumed
COLLATE_FNS = Registry(
    "collate_fns",
    DATA,
    namespaces={"torch.utils.data": _function("default_collate".__eq__)},
    call_args=1,
)
MODELS = Registry(
    "models",
    MODEL,
    lambda thing: _is_model(thing) and not _is_loss_or_metric(thing),
    {"torch.nn": _is_model, "torchvision.models": _builds_model},
)
INITS = Registry(
    "inits",
    MODEL,
    namespaces={"torch.nn.init": _function(lambda name: name.endswith("_"))},
    call_args=1,
)
LOSSES = Registry(
    "losses",
    MODEL,
    _is_in_files("loss"),
    {"torch.nn": _is_loss_class, "torch.nn.functional": _is_loss_function},
    call_args=2,
)
METRICS = Registry(
    "metrics",
    MODEL,
    _is_in_files("metric"),
    {f"torchmetrics{part}": _is_metric for part in TORCHMETRICS},
    call_args=2,
)
OPTIMIZERS = _of_classes("optimizers", MODEL + TRAINER, torch.optim.Optimizer, "torch.optim")
LR_SCHEDULERS = _of_classes(
    "lr_schedulers", MODEL + TRAINER, LRScheduler, "torch.optim.lr_scheduler"
)
CALLBACKS = _of_classes("callbacks", TRAINER, Callback)
TRAINERS = _of_classes("trainers", TRAINER, BaseTrainer)

REGISTRIES = {part.section: part for part in list(vars().values()) if isinstance(part, Registry)}
