"""The sections of a config whose values are names: where their things are found, and which."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from base.base_data_loader import BaseDataLoader
from base.base_trainer import BaseTrainer
from base.base_writer import BaseWriter
from base.callback import Callback
from base.data.order import SampleOrder
from base.registry.registry import Predicate, Registry

DATA, MODEL, LOGGER = ("data_loader/**/*.py",), ("model/**/*.py",), ("logger/**/*.py",)
TRAINER = ("trainer/*.py",)  # not its rooms with commands
TORCHMETRICS = ("", ".classification", ".regression", ".text", ".image", ".audio", ".retrieval")


def _class_of(base: type) -> Predicate:
    return lambda thing: inspect.isclass(thing) and issubclass(thing, base) and thing is not base


def _function(accepts: Callable[[str], bool]) -> Predicate:
    return lambda thing: inspect.isfunction(thing) and accepts(thing.__name__)


def _is_in(thing: Any, *names: str) -> bool:
    """Tell whether a thing is defined in a module or folder of exactly one of these names."""
    return not {*names}.isdisjoint(thing.__module__.split("."))


def _defined_in(*names: str) -> Predicate:
    return lambda thing: (
        (inspect.isfunction(thing) or inspect.isclass(thing)) and _is_in(thing, *names)
    )


_is_module = _class_of(torch.nn.Module)


def _builds_model(thing: Any) -> bool:
    return inspect.isfunction(thing) and _is_module(inspect.signature(thing).return_annotation)


def _is_loss_function(thing: Any) -> bool:
    try:
        return inspect.isroutine(thing) and "reduction" in inspect.signature(thing).parameters
    except ValueError:  # a builtin that does not tell
        return False


def _is_metric(thing: Any) -> bool:
    bases = thing.__mro__[1:] if inspect.isclass(thing) else ()
    return "torchmetrics.metric.Metric" in {f"{b.__module__}.{b.__name__}" for b in bases}


def _of_classes(section: str, places: tuple[str, ...], base: type, *namespaces: str) -> Registry:
    """Return a section of the subclasses of `base`, the project's own and those of namespaces."""
    is_one = _class_of(base)
    return Registry(section, places, is_one, dict.fromkeys(namespaces, is_one), base)


DATASETS = _of_classes("datasets", DATA, Dataset, "torchvision.datasets")
DATA_LOADERS = _of_classes("data_loaders", DATA, BaseDataLoader)
DATA_LOADERS.register()(BaseDataLoader)
TRANSFORMS = Registry("transforms", DATA, namespaces={"torchvision.transforms.v2": _is_module})
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
    lambda thing: _is_module(thing) and not _is_in(thing, "loss", "losses", "metric", "metrics"),
    {"torch.nn": _is_module, "torchvision.models": _builds_model},
    torch.nn.Module,
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
    _defined_in("loss", "losses"),
    {
        "torch.nn": lambda thing: _is_module(thing) and thing.__name__.endswith("Loss"),
        "torch.nn.functional": _is_loss_function,
    },
    call_args=2,
)
METRICS = Registry(
    "metrics",
    MODEL,
    _defined_in("metric", "metrics"),
    {f"torchmetrics{part}": _is_metric for part in TORCHMETRICS},
    call_args=2,
)
OPTIMIZERS = _of_classes("optimizers", MODEL + TRAINER, torch.optim.Optimizer, "torch.optim")
LR_SCHEDULERS = _of_classes(
    "lr_schedulers", MODEL + TRAINER, LRScheduler, "torch.optim.lr_scheduler"
)
CALLBACKS = _of_classes("callbacks", (*TRAINER, "trainer/callbacks/**/*.py"), Callback)
TRAINERS = _of_classes("trainers", (*TRAINER, "trainer/callbacks/**/*.py"), BaseTrainer)
WRITERS = _of_classes("writers", LOGGER, BaseWriter)

REGISTRIES = {part.section: part for part in list(vars().values()) if isinstance(part, Registry)}
