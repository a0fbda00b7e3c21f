"""The schema of a config: every key, its type, range and default. Unknown keys are errors."""

import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from base.config_file import Node, plain, where_is
from base.errors import ConfigError, Mistake

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> str:
    """Return a name of letters, digits, '.', '_' and '-', which can be a folder's anywhere.

    Raises:
        ValueError: it holds other characters than these, or starts with '.' or '-'.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            "expected at most 100 letters, digits, '.', '_' or '-', the first no '.' or '-', "
            f"found {name!r}"
        )
    return name


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


def _typed(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _split_monitor(value: str) -> str:
    if value != "off" and not re.fullmatch(r"(min|max) \S+", value):
        raise ValueError(f"expected 'min COLUMN', 'max COLUMN' or 'off', found {value!r}")
    return value


class Section(BaseModel):
    """A mapping of the config; types are taken as written, keys as listed."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class NodeConfig(Section):
    """What to build: a name, and the arguments it is called with."""

    type: str
    args: dict[str, Any] | list[Any] = Field(default_factory=dict)

    def node(self) -> dict[str, Any]:
        """Return the plain node that `base.build` takes."""
        return {"type": self.type, "args": self.args}


AnyNode = Annotated[NodeConfig, BeforeValidator(_typed)]
Nodes = Annotated[list[AnyNode], BeforeValidator(_listed)]


class DatasetConfig(NodeConfig):
    """A dataset and the transforms of its samples' first element."""

    transform: Nodes | None = None
    valid_transform: Nodes | None = None


class DataLoaderConfig(NodeConfig):
    """A data loader; the stock one batches `dataset`."""

    type: str = "BaseDataLoader"
    in_memory: Literal["auto"] | bool = "auto"


class ModelConfig(NodeConfig):
    """A model, how its weights start, and which of them stay as they are."""

    init: AnyNode | None = None
    freeze: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)
    weights: str | None = None


class MetricConfig(NodeConfig):
    """A metric; `name` is its column, its type by default."""

    name: str | None = None

    @property
    def column(self) -> str:
        return self.name or self.type


class ParamGroup(BaseModel):
    """Options of the optimizer for the parameters whose names match a pattern."""

    model_config = ConfigDict(extra="allow", strict=True)
    params: str


class OptimizerConfig(NodeConfig):
    """An optimizer, with options of its own for some parameters."""

    param_groups: list[ParamGroup] = Field(default_factory=list)


class LrSchedulerConfig(NodeConfig):
    """A learning-rate scheduler, and whether it steps every epoch or every optimizer step."""

    interval: Literal["epoch", "step"] = "epoch"


class TrainerConfig(NodeConfig):
    """How long to train, what to watch, what to save and how to compute."""

    type: str = "Trainer"
    epochs: int = Field(100, ge=1)
    len_epoch: int | None = Field(None, ge=1)
    monitor: Annotated[str, AfterValidator(_split_monitor)] = "off"
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
    """Where a run is told; verbosity 0 shows warnings, 1 epochs, 2 everything."""

    tensorboard: bool = True
    csv: bool = True
    verbosity: Literal[0, 1, 2] = 2


class Config(Section):
    """A whole config; `base.config_check.load_config` makes it and reports all mistakes at once."""

    name: Annotated[str, AfterValidator(check_name)]
    seed: int = Field(123, ge=0, lt=2**63)
    device: str = "auto"
    dataset: Annotated[DatasetConfig, BeforeValidator(_typed)] | None = None
    valid_dataset: Annotated[DatasetConfig, BeforeValidator(_typed)] | None = None
    test_dataset: Annotated[DatasetConfig, BeforeValidator(_typed)] | None = None
    data_loader: Annotated[DataLoaderConfig, BeforeValidator(_typed)] = Field(
        default_factory=DataLoaderConfig
    )
    model: Annotated[ModelConfig, BeforeValidator(_typed)]
    loss: AnyNode
    metrics: Annotated[
        list[Annotated[MetricConfig, BeforeValidator(_typed)]], BeforeValidator(_listed)
    ] = Field(default_factory=list)
    optimizer: Annotated[OptimizerConfig, BeforeValidator(_typed)]
    lr_scheduler: Annotated[LrSchedulerConfig, BeforeValidator(_typed)] | None = None
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    callbacks: Nodes = Field(default_factory=list)
    logger: LoggerConfig = Field(default_factory=LoggerConfig)

    _tree: Node | None = PrivateAttr(None)

    def mistake(self, path: str, message: str) -> ConfigError:
        """Return the error for a mistake that shows only when parts are built."""
        return ConfigError([Mistake(self.where(path), path, message)])

    def where(self, path: str) -> str:
        """Return the file, line and column that a dotted path was read from."""
        return where_is(self._tree, path.split(".")) if self._tree else ""

    def to_yaml(self) -> str:
        """Return the whole config, defaults included, as text that runs again as it is."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True, width=100)

    @classmethod
    def from_tree(cls, tree: Node) -> "Config":
        """Return the config of a tree without positions' checks; for trees known to be right."""
        config = cls.model_validate(plain(tree))
        config._tree = tree
        return config
