"""The names of a config, by section: `@MODELS.register("name")` makes one known.

Whatever a folder of the project defines of the right kind is known without that.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset, default_collate

from base.base_data_loader import BaseDataLoader
from base.base_trainer import BaseTrainer
from base.base_writer import BaseWriter
from base.callback import Callback
from base.data.order import SampleOrder
from base.errors import UsageError, did_you_mean
from base.registry.registry import Predicate, Registry

DATA, MODEL, LOGGER = ["data_loader/**/*.py"], ["model/**/*.py"], ["logger/**/*.py"]
TRAINER = ["trainer/*.py"]  # not its rooms with commands
CALLBACK = [*TRAINER, "trainer/callbacks/**/*.py"]
TORCHMETRICS = ("", ".classification", ".regression", ".text", ".image", ".audio", ".retrieval")


def _subclass_of(base: type) -> Predicate:
    return lambda thing: inspect.isclass(thing) and issubclass(thing, base) and thing is not base


def _is_in(thing: Any, *names: str) -> bool:
    """Tell whether a class or function is in a module or folder of exactly one of these names."""
    is_kind = inspect.isfunction(thing) or inspect.isclass(thing)
    return is_kind and not {*names}.isdisjoint(thing.__module__.split("."))


_is_module = _subclass_of(torch.nn.Module)


def _is_model(thing: Any) -> bool:
    return _is_module(thing) and not _is_in(thing, "loss", "losses", "metric", "metrics")


def _builds_model(thing: Any) -> bool:
    return inspect.isfunction(thing) and _is_module(inspect.signature(thing).return_annotation)


def _is_loss_function(thing: Any) -> bool:
    return inspect.isfunction(thing) and "reduction" in inspect.signature(thing).parameters


def _fills_in_place(thing: Any) -> bool:
    return inspect.isfunction(thing) and thing.__name__.endswith("_")


def _is_metric(thing: Any) -> bool:
    from torchmetrics import Metric

    return _subclass_of(Metric)(thing)


def _classes(section: str, places: list[str], base: type, *namespaces: str) -> Registry:
    """Return the section of the subclasses of `base`, the project's own and those of namespaces."""
    is_one = _subclass_of(base)
    return Registry(section, places, is_one, dict.fromkeys(namespaces, is_one), base=base)


DATASETS = _classes("datasets", DATA, Dataset, "torchvision.datasets")
DATA_LOADERS = _classes("data_loaders", DATA, BaseDataLoader)
DATA_LOADERS.register()(BaseDataLoader)
TRANSFORMS = Registry("transforms", DATA, namespaces={"torchvision.transforms.v2": _is_module})
SAMPLERS = _classes("samplers", DATA, SampleOrder)  # torch's cannot be resumed
COLLATE_FNS = Registry("collate_fns", DATA, call_args=1)
COLLATE_FNS.register()(default_collate)
MODELS = Registry(
    "models",
    MODEL,
    _is_model,
    {"torch.nn": _is_module, "torchvision.models": _builds_model},
    base=torch.nn.Module,
)
INITS = Registry("inits", MODEL, namespaces={"torch.nn.init": _fills_in_place}, call_args=1)
LOSSES = Registry(
    "losses",
    MODEL,
    lambda thing: _is_in(thing, "loss", "losses"),
    {
        "torch.nn": lambda thing: _is_module(thing) and thing.__name__.endswith("Loss"),
        "torch.nn.functional": _is_loss_function,
    },
    call_args=2,
)
METRICS = Registry(
    "metrics",
    MODEL,
    lambda thing: _is_in(thing, "metric", "metrics"),
    {f"torchmetrics{part}": _is_metric for part in TORCHMETRICS},
    call_args=2,
)
OPTIMIZERS = _classes("optimizers", MODEL + TRAINER, torch.optim.Optimizer, "torch.optim")
LR_SCHEDULERS = _classes("lr_schedulers", MODEL + TRAINER, LRScheduler, "torch.optim.lr_scheduler")
CALLBACKS = _classes("callbacks", CALLBACK, Callback)
TRAINERS = _classes("trainers", CALLBACK, BaseTrainer)
WRITERS = _classes("writers", LOGGER, BaseWriter)

REGISTRIES = {part.section: part for part in list(vars().values()) if isinstance(part, Registry)}


def print_names(sections: Sequence[str]) -> None:
    """Print every name of the sections, or of all, with the file or module it comes from.

    Raises:
        UsageError: there is no such section.
    """
    for section in sections:
        if section not in REGISTRIES:
            near, known = did_you_mean(section, REGISTRIES), ", ".join(REGISTRIES)
            raise UsageError(f"no section {section!r}{near}, expected one of {known}")
    for section in sections or REGISTRIES:
        print(section)
        names = REGISTRIES[section].names()
        for source in sorted({*names.values()}, key=lambda s: (not s.endswith(".py"), s)):
            print(f"  {source}: {', '.join(sorted(n for n in names if names[n] == source))}")
