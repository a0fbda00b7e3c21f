"""The schema of a config: every key, its type, range and default. Unknown keys are errors."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from base.config.scalars import dump_yaml
from base.config.source import Source
from base.errors import ConfigError, ConfigIssue, KeyPath, format_value

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
MONITOR = re.compile(r"off|(min|max) \S+")
# The registry of what is built from a key, wherever the schema has that key.
SECTIONS = {
    "dataset": "datasets", "valid_dataset": "datasets", "test_dataset": "datasets",
    "transform": "transforms", "valid_transform": "transforms", "data_loader": "data_loaders",
    "model": "models", "init": "inits", "loss": "losses", "metrics": "metrics",
    "optimizer": "optimizers", "lr_scheduler": "lr_schedulers", "trainer": "trainers",
    "callbacks": "callbacks",
}  # fmt: skip
STOCK = {"data_loader": "BaseDataLoader", "trainer": "Trainer"}  # where a config names nothing
NOT_RESULTS = ("epoch", "step", "seconds", "samples_per_second", "lr")  # columns of a row
RESERVED_COLUMNS = (*NOT_RESULTS, "loss")


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):  # it becomes a folder's name, on any system
        allowed = "up to 100 letters, digits, '.', '_' and '-', not starting with '.' or '-'"
        raise ValueError(f"expected {allowed}, found {format_value(name)}")
    return name


def check_monitor(monitor: str) -> str:
    """Return what a monitor may be told to follow; ValueError for anything else."""
    if not MONITOR.fullmatch(monitor):
        expected = "'min COLUMN', 'max COLUMN' or 'off'"
        raise ValueError(f"expected {expected}, found {format_value(monitor)}")
    return monitor


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


class Section(BaseModel):
    """A mapping of the config: keys as listed, types as written, null for a key's default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            kind = "a name or a mapping" if issubclass(cls, NodeConfig) else "a mapping"
            raise ValueError(f"expected {kind}, found {format_value(value)}")
        return {k: v for k, v in value.items() if v is not None or k not in cls.model_fields}


class NodeConfig(Section):
    """What to build: a name, and the arguments it is called with; or the name alone."""

    type: str
    args: dict[str, Any] | list[Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _take_name(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    def node(self) -> dict[str, Any]:
        """Return the plain node that `base.registry.build` takes."""
        return {"type": self.type, "args": self.args}


Nodes = Annotated[list[NodeConfig], BeforeValidator(_listed)]


class DatasetConfig(NodeConfig):
    """A dataset and the transforms of its samples' first element."""

    transform: Nodes | None = None


class TrainDatasetConfig(DatasetConfig):
    """The dataset to train on, and the transforms that validation and test see instead."""

    valid_transform: Nodes | None = None


class DataLoaderConfig(NodeConfig):
    """A data loader; the stock one batches `dataset`."""

    type: str = STOCK["data_loader"]
    in_memory: bool | Literal["auto"] = "auto"


class ModelConfig(NodeConfig):
    """A model, how its weights start, and which of them stay as they are."""

    init: NodeConfig | None = None
    freeze: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)
    weights: str | None = None


class MetricConfig(NodeConfig):
    """A metric; `name` is its column, its type by default."""

    name: str | None = None

    @property
    def column(self) -> str:
        return self.name or self.type


class ParamGroup(Section):
    """Options of the optimizer for some parameters: by name, and by their number of dimensions.

    Those of at most one dimension are biases and the weights of normalisations.
    """

    model_config = ConfigDict(extra="allow")
    params: Annotated[list[str], BeforeValidator(_listed)] = ["*"]
    max_ndim: int | None = Field(None, ge=0)


class OptimizerConfig(NodeConfig):
    """An optimizer, with options of its own for some parameters."""

    param_groups: list[ParamGroup] = Field(default_factory=list)


class LrSchedulerConfig(NodeConfig):
    """A learning-rate scheduler, and whether it steps every epoch or every optimizer step."""

    interval: Literal["epoch", "step"] = "epoch"


class TrainerConfig(NodeConfig):
    """How long to train, what to watch, what to save and how to compute."""

    type: str = STOCK["trainer"]
    epochs: int = Field(100, ge=1)
    len_epoch: int | None = Field(None, ge=1)
    monitor: Annotated[str, AfterValidator(check_monitor)] = "off"
    early_stop: int = Field(0, ge=0)
    save_dir: str = "saved/"
    save_period: int = Field(1, ge=1)
    save_steps: int | None = Field(None, ge=1)
    keep_last: int = Field(3, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = Field(1, ge=1)
    clip_grad_norm: float | None = Field(None, gt=0, allow_inf_nan=False)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    compile: bool = False
    channels_last: bool = False
    deterministic: bool = True
    log_interval: int = Field(50, ge=1)
    limit_batches: int | None = Field(None, ge=1)


class LoggerConfig(Section):
    """What the console shows: 0 warnings, 1 epochs, 2 everything; any other key names a writer."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | dict[str, Any] | None]
    verbosity: int = Field(2, ge=0, le=2)

    @property
    def writers(self) -> dict[str, bool | dict[str, Any]]:
        """The writers that are named: on, off, or on with these options."""
        return {k: v for k, v in self.__pydantic_extra__.items() if v is not None}


class Config(Section):
    """A whole config; `base.config.check.load_config` makes it and reports all issues at once."""

    name: Annotated[str, AfterValidator(_check_name)]
    seed: int = Field(123, ge=0, lt=2**63)
    device: str = "auto"
    dataset: TrainDatasetConfig | None = None
    valid_dataset: DatasetConfig | None = None
    test_dataset: DatasetConfig | None = None
    data_loader: DataLoaderConfig = Field(default_factory=DataLoaderConfig)
    model: ModelConfig
    loss: NodeConfig
    metrics: Annotated[list[MetricConfig], BeforeValidator(_listed)] = Field(default_factory=list)
    optimizer: OptimizerConfig
    lr_scheduler: LrSchedulerConfig | None = None
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    callbacks: Nodes = Field(default_factory=list)
    logger: LoggerConfig = Field(default_factory=LoggerConfig)

    _source: Source | None = None

    def issue(self, path: KeyPath, message: str) -> ConfigError:
        """Return the error for an issue that shows only when parts are built."""
        return ConfigError([ConfigIssue(path, message, self.where(path))])

    def where(self, path: KeyPath) -> str:
        """Return the file, line and column that the value at `path` was read from."""
        return self._source.where(path) if self._source else ""

    def to_yaml(self) -> str:
        """Return the whole config, defaults included, as text that runs again as it is."""
        return dump_yaml(self.model_dump())

    @classmethod
    def from_source(cls, source: Source) -> "Config":
        """Return the config of values whose keys, types and ranges are right."""
        config = cls.model_validate(source.values)
        config._source = source
        return config
