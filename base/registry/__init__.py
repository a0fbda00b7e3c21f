"""Names of a config to objects: `@MODELS.register("name")` makes one known."""

from base.registry.registry import Registry
from base.registry.sections import (
    CALLBACKS,
    COLLATE_FNS,
    DATA_LOADERS,
    DATASETS,
    INITS,
    LOSSES,
    LR_SCHEDULERS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    REGISTRIES,
    SAMPLERS,
    TRAINERS,
    TRANSFORMS,
    WRITERS,
)  # fmt: skip

__all__ = [
    "CALLBACKS",
    "COLLATE_FNS",
    "DATASETS",
    "DATA_LOADERS",
    "INITS",
    "LOSSES",
    "LR_SCHEDULERS",
    "METRICS",
    "MODELS",
    "OPTIMIZERS",
    "REGISTRIES",
    "SAMPLERS",
    "TRAINERS",
    "TRANSFORMS",
    "WRITERS",
    "Registry",
]  # fmt: skip
