"""Names to things: what a config may name, the project's own first, then torch's, by section."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from base.base_data_loader import BaseDataLoader
from base.base_trainer import BaseTrainer
from base.callback import Callback
from base.errors import UserError, did_you_mean

Predicate = Callable[[Any], bool]


class NameLookupError(UserError):
    """A name that a section of the config cannot use; the message says why."""


@dataclass
class Registry:
    """The names one section of a config may use.

    `packages` are searched for the project's own: public objects that a module defines and
    `is_own(module, object)` accepts. `namespaces` are modules of torch and its family, imported
    only when asked, each with the kind of object taken from it. `call_args` counts the leading
    arguments that a function gets when it is called, such as (output, target) of a loss.
    """

    section: str
    packages: tuple[str, ...]
    is_own: Callable[[ModuleType, Any], bool] = lambda module, thing: False
    namespaces: tuple[tuple[str, Predicate], ...] = ()
    call_args: int = 0
    registered: dict[str, list[Any]] = field(default_factory=dict)

    def register(self, name: str | None = None) -> Callable[[Any], Any]:
        """Decorate a class or function to make it known here, under `name` or its own name."""

        def remember(thing: Any) -> Any:
            self.registered.setdefault(name or thing.__name__, []).append(thing)
            return thing

        return remember

    def own(self) -> dict[str, list[Any]]:
        """Return the project's own things by name; more than one under a name is a conflict.

        Raises:
            NameLookupError: a module of the section's packages cannot be imported.
        """
        found: dict[str, list[Any]] = {}
        for package in self.packages:
            for module in import_modules(package):
                for name, thing in vars(module).items():
                    defined_here = getattr(thing, "__module__", None) == module.__name__
                    if not name.startswith("_") and defined_here and self.is_own(module, thing):
                        found.setdefault(name, []).append(thing)
        for name, things in self.registered.items():
            known = found.setdefault(name, [])
            known += [thing for thing in things if thing not in known]
        return found

    def find(self, name: str) -> Any:
        """Return what `name` stands for.

        Raises:
            NameLookupError: the name is unknown, or stands for two things of the project.
        """
        own = self.own().get(name, [])
        if len(own) > 1:
            files = " and ".join(sorted(source_file(thing) for thing in own))
            raise NameLookupError(f"{name!r} is defined twice, in {files}; rename one")
        if own:
            return own[0]
        for namespace, accepts in self.namespaces:
            thing = vars(importlib.import_module(namespace)).get(name)
            if not name.startswith("_") and thing is not None and accepts(thing):
                return thing
        raise NameLookupError(f"unknown name {name!r}{did_you_mean(name, self.names())}")

    def names(self) -> dict[str, str]:
        """Return every name with where it comes from: a file of the project or a namespace."""
        sources: dict[str, str] = {}
        for namespace, accepts in reversed(self.namespaces):
            members = vars(importlib.import_module(namespace)).items()
            sources |= {n: namespace for n, thing in members if n[0] != "_" and accepts(thing)}
        return sources | {name: source_file(things[0]) for name, things in self.own().items()}


@cache
def import_modules(package: str) -> tuple[ModuleType, ...]:
    """Import every module below a package of the project.

    Raises:
        NameLookupError: one of them fails to import; the message names it and the cause.
    """
    return tuple(_import_below(package))


def _import_below(package: str) -> Iterator[ModuleType]:
    root = _import(package)
    yield root
    for found in pkgutil.iter_modules(root.__path__, f"{package}."):
        if found.ispkg:
            yield from _import_below(found.name)
        else:
            yield _import(found.name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a user's module may fail in any way
        cause = f"{type(error).__name__}: {error}"
        raise NameLookupError(f"module {name} cannot be imported: {cause}") from error


def source_file(thing: Any) -> str:
    """Return the file that defines `thing`, relative to the working directory if below it."""
    path = Path(inspect.getsourcefile(thing) or "?")
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _class_of(base: type) -> Predicate:
    return lambda thing: inspect.isclass(thing) and issubclass(thing, base) and thing is not base


def _own_class(base: type) -> Callable[[ModuleType, Any], bool]:
    return lambda module, thing: _class_of(base)(thing)


def _own_in_files(stem: str) -> Callable[[ModuleType, Any], bool]:
    return lambda module, thing: (
        module.__name__.rpartition(".")[2].startswith(stem)
        and (inspect.isfunction(thing) or inspect.isclass(thing))
    )


def _own_model(module: ModuleType, thing: Any) -> bool:
    elsewhere = module.__name__.rpartition(".")[2].startswith(("loss", "metric"))
    return not elsewhere and _class_of(torch.nn.Module)(thing)


def _builds_model(thing: Any) -> bool:
    if not inspect.isfunction(thing):
        return False
    return _class_of(torch.nn.Module)(inspect.signature(thing).return_annotation)


def _is_loss_class(thing: Any) -> bool:
    return _class_of(torch.nn.Module)(thing) and thing.__name__.endswith("Loss")


def _is_loss_function(thing: Any) -> bool:
    return inspect.isroutine(thing) and "reduction" in _parameter_names(thing)


def _is_metric(thing: Any) -> bool:
    return inspect.isclass(thing) and "torchmetrics.metric.Metric" in {
        f"{base.__module__}.{base.__name__}" for base in thing.__mro__[1:]
    }


def _is_init(thing: Any) -> bool:
    return inspect.isfunction(thing) and thing.__name__.endswith("_")


def _is_collate(thing: Any) -> bool:
    return inspect.isfunction(thing) and thing.__name__ == "default_collate"


def _parameter_names(thing: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(thing).parameters)
    except ValueError:  # a builtin that does not tell
        return frozenset()


TORCHMETRICS = ("", ".classification", ".regression", ".text", ".image", ".audio", ".retrieval")
LR_SCHEDULER = torch.optim.lr_scheduler.LRScheduler

DATASETS = Registry(
    "datasets",
    ("data_loader",),
    _own_class(Dataset),
    (("torchvision.datasets", _class_of(Dataset)),),
)
DATA_LOADERS = Registry(
    "data_loaders",
    ("data_loader",),
    _own_class(BaseDataLoader),
    (("base.base_data_loader", lambda thing: thing is BaseDataLoader),),
)
TRANSFORMS = Registry(
    "transforms",
    ("data_loader",),
    namespaces=(("torchvision.transforms.v2", _class_of(torch.nn.Module)),),
)
SAMPLERS = Registry(
    "samplers", ("data_loader",), _own_class(Sampler), (("torch.utils.data", _class_of(Sampler)),)
)
COLLATE_FNS = Registry(
    "collate_fns", ("data_loader",), namespaces=(("torch.utils.data", _is_collate),), call_args=1
)
MODELS = Registry(
    "models",
    ("model",),
    _own_model,
    (("torchvision.models", _builds_model), ("torch.nn", _class_of(torch.nn.Module))),
)
INITS = Registry(
    "inits",
    ("model",),
    namespaces=(("torch.nn.init", _is_init),),
    call_args=1,
)
LOSSES = Registry(
    "losses",
    ("model",),
    _own_in_files("loss"),
    (("torch.nn", _is_loss_class), ("torch.nn.functional", _is_loss_function)),
    call_args=2,
)
METRICS = Registry(
    "metrics",
    ("model",),
    _own_in_files("metric"),
    tuple((f"torchmetrics{part}", _is_metric) for part in TORCHMETRICS),
    call_args=2,
)
OPTIMIZERS = Registry(
    "optimizers",
    ("model", "trainer"),
    _own_class(torch.optim.Optimizer),
    (("torch.optim", _class_of(torch.optim.Optimizer)),),
)
LR_SCHEDULERS = Registry(
    "lr_schedulers",
    ("model", "trainer"),
    _own_class(LR_SCHEDULER),
    (("torch.optim.lr_scheduler", _class_of(LR_SCHEDULER)),),
)
CALLBACKS = Registry("callbacks", ("trainer",), _own_class(Callback))
TRAINERS = Registry("trainers", ("trainer",), _own_class(BaseTrainer))

REGISTRIES = {
    registry.section: registry
    for registry in (
        DATASETS, DATA_LOADERS, TRANSFORMS, SAMPLERS, COLLATE_FNS, MODELS, INITS, LOSSES, METRICS,
        OPTIMIZERS, LR_SCHEDULERS, CALLBACKS, TRAINERS,
    )
}  # fmt: skip
