"""From the sections of a config to the parts of a run: model, loss, metrics, optimizer, ..."""

import logging
import math
import urllib.error
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base import BaseDataLoader, Callback
from base.base_model import replace_head
from base.checkpoint.checkpoints import read_weights
from base.config.rules import PLATEAU
from base.config.schema import Config, LrSchedulerConfig, NodeConfig
from base.errors import CheckpointError, ConfigError, ConfigIssue, KeyPath, did_you_mean
from base.registry import CALLBACKS, INITS, LOSSES, LR_SCHEDULERS, METRICS, MODELS, OPTIMIZERS
from base.registry.arguments import FALLBACKS, Parameters
from base.registry.build import build, split_node
from base.registry.registry import Registry
from base.runtime.device import to_device
from trainer.batches import count_steps

log = logging.getLogger("train")

LENGTHS = ("T_max", "total_steps")  # what a scheduler gets of the run where it is left out
LONG = 10**9  # steps, more than any run has


def build_part(
    config: Config, path: KeyPath, node: NodeConfig, registry: Registry, /, **runtime: Any
) -> Any:
    """Build one node of the config, `runtime` being what the project passes to it.

    Raises:
        ConfigError: a class refuses the args; the error says where they were read.
    """
    try:
        return build(node.node(), registry, path=path, runtime=runtime)
    except ConfigError as error:
        issues = [ConfigIssue(i.path, i.message, config.where(i.path)) for i in error.issues]
        raise ConfigError(issues) from error


def build_parts(
    config: Config, path: KeyPath, nodes: Sequence[NodeConfig], registry: Registry
) -> list[Any]:
    """Build each node of a list of the config."""
    return [build_part(config, (*path, i), node, registry) for i, node in enumerate(nodes)]


# --- model, loss, metrics -----------------------------------------------------------------------


def build_model(config: Config, device: torch.device, *, load_weights: bool = True) -> nn.Module:
    """Return the model on its device, its weights initialised, loaded and frozen as configured.

    `load_weights` is false where a checkpoint follows: the file may be gone since the run began.

    Raises:
        ConfigError: a pattern of `freeze` matches no parameter.
        CheckpointError: weights cannot be fetched or read, or share no key with the model.
    """
    section = config.model
    model = _build_bare_model(config)
    if section.init is not None:
        init = build_part(config, ("model", "init"), section.init, INITS)
        for weight in (p for p in model.parameters() if p.ndim >= 2):
            init(weight)
    if section.weights is not None and load_weights:
        load_matching(model, Path(section.weights))
    parameters = dict(model.named_parameters())
    for number, pattern in enumerate(section.freeze):
        for name in _matching(config, ("model", "freeze", number), parameters, [pattern]):
            parameters[name].requires_grad_(False)
    layout = torch.channels_last if config.trainer.channels_last else torch.preserve_format
    return model.to(device, memory_format=layout)


def _build_bare_model(config: Config) -> nn.Module:
    """Return the model as its class or builder makes it.

    Weights of torchvision's have a number of classes of their own: for another one, the model gets
    a new head.
    """
    section, num_classes = config.model, None
    args = dict(section.args) if isinstance(section.args, dict) else {}
    is_torchvisions = MODELS.find(section.type).__module__.startswith("torchvision.")
    if is_torchvisions and args.get("weights"):
        num_classes = args.pop("num_classes", None)
        section = section.model_copy(update={"args": args})
    try:
        model = build_part(config, ("model",), section, MODELS)
    except urllib.error.URLError as error:
        raise CheckpointError(
            f"the weights of {section.type} could not be fetched ({error}). Put their file into "
            f"{torch.hub.get_dir()}/checkpoints/, or start without: model.args.weights=null"
        ) from error
    if num_classes is not None:
        replace_head(model, num_classes)
    return model


def load_matching(model: nn.Module, path: Path) -> None:
    """Load what fits of a checkpoint of this project or a safetensors file; say what did not.

    Raises:
        CheckpointError: the file cannot be read, or nothing in it fits.
    """
    weights = read_weights(path)
    own = model.state_dict()
    fits = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
    if not fits:
        raise CheckpointError(f"{path}: no weight of it fits the model, of {len(weights)} there")
    missing = model.load_state_dict(fits, strict=False).missing_keys
    log.info("weights: %d of the model's %d tensors come from %s", len(fits), len(own), path)
    log.info("weights kept as initialised: %s", ", ".join(missing) or "none")
    log.info("weights not used: %s", ", ".join(sorted(weights.keys() - fits.keys())) or "none")


def build_loss(config: Config, device: torch.device) -> Callable:
    """Return the loss; what it holds, such as class weights, is on the device."""
    loss = build_part(config, ("loss",), config.loss, LOSSES)
    if isinstance(loss, partial):
        return partial(loss.func, **to_device(loss.keywords, device))
    return loss.to(device) if isinstance(loss, nn.Module) else loss


def build_metrics(config: Config) -> dict[str, Callable]:
    """Return the metrics by their columns."""
    metrics = build_parts(config, ("metrics",), config.metrics, METRICS)
    return {section.column: metric for section, metric in zip(config.metrics, metrics, strict=True)}


# --- optimizer, scheduler, callbacks ------------------------------------------------------------


def build_optimizer(config: Config, model: nn.Module, loss: Any) -> torch.optim.Optimizer:
    """Return the optimizer over the model's parameters and the loss's, if it has any.

    It is a fused one, the quickest, where torch has that and the parameters allow it.

    Raises:
        ConfigError: a pattern of `param_groups` matches no parameter.
    """
    section = config.optimizer
    left = dict(model.named_parameters())
    if isinstance(loss, nn.Module):
        left |= {f"loss.{name}": parameter for name, parameter in loss.named_parameters()}
    groups = []
    for number, group in enumerate(section.param_groups):
        path = ("optimizer", "param_groups", number, "params")
        limit = math.inf if group.max_ndim is None else group.max_ndim
        small = [name for name, parameter in left.items() if parameter.ndim <= limit]
        names = _matching(config, path, small, group.params)
        groups.append(group.model_extra | {"params": [left.pop(name) for name in names]})
    if left:
        groups.append({"params": list(left.values())})
    runtime = {"fused": True} if _can_fuse(section.type, model, loss) else {}
    return build_part(config, ("optimizer",), section, OPTIMIZERS, params=groups, **runtime)


def _matching(
    config: Config, path: KeyPath, names: Iterable[str], patterns: Sequence[str]
) -> list[str]:
    """Return the names that match one of the patterns at `path`; a ConfigError if none does."""
    found = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        raise config.issue(path, f"{', '.join(patterns)!r} matches no parameter (that is left)")
    return found


def _can_fuse(optimizer: str, *parts: Any) -> bool:
    """Tell whether torch's fused optimizers take the parts: real numbers and dense gradients."""
    modules = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))
    parameters = list(modules.parameters())
    is_sparse = any(getattr(module, "sparse", False) for module in modules.modules())
    has_kernel = optimizer != "Adagrad" or all(p.device.type in ("cpu", "cuda") for p in parameters)
    return has_kernel and not is_sparse and all(p.is_floating_point() for p in parameters)


def build_lr_scheduler(
    config: Config, optimizer: torch.optim.Optimizer, data_loader: BaseDataLoader
) -> Any:
    """Return the scheduler, or None; its length is the run's where it needs one and none is set."""
    section = config.lr_scheduler
    if section is None:
        return None
    length = config.trainer.epochs
    if section.interval == "step":
        length *= count_steps(config.trainer, data_loader)
    runtime = {"optimizer": optimizer, "max_lr": [group["lr"] for group in optimizer.param_groups]}
    if section.type == PLATEAU:
        runtime["mode"] = config.trainer.monitor.split()[0]
    node = section.model_copy(update=_with_lengths(section.node(), length))
    return build_part(config, ("lr_scheduler",), node, LR_SCHEDULERS, **runtime)


def takes_length_of_run(section: LrSchedulerConfig | None) -> bool:
    """Tell whether a scheduler, or one nested in it, takes its length from the run's."""
    if section is None:
        return False
    node = section.node()
    return _with_lengths(node, LONG) != _with_lengths(node, LONG + 1)


def _with_lengths(node: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return a scheduler's node with its length: the run's, or that of its part of a sequence."""
    name, args = split_node(node)
    parameters = Parameters(name, LR_SCHEDULERS, ("optimizer", *FALLBACKS))
    if parameters.has_var_positional:  # one of the project's own, whose args need not have names
        return {"type": name, "args": args}
    args = parameters.fill(parameters.named(args), dict.fromkeys(LENGTHS, length))
    if name in ("SequentialLR", "ChainedScheduler"):
        ends = [*args.get("milestones", ()), length]
        lengths = [max(end - start, 1) for start, end in pairwise([0, *ends])]
        if len(lengths) != len(args["schedulers"]):  # the parts of a chain all go all the way
            lengths = [length] * len(args["schedulers"])
        args["schedulers"] = list(map(_with_lengths, args["schedulers"], lengths))
    return {"type": name, "args": args}


def build_callbacks(config: Config) -> list[Callback]:
    """Return the callbacks in the order in which they act.

    Raises:
        ConfigError: one of them has a method that nothing calls, named much like a hook.
    """
    callbacks = build_parts(config, ("callbacks",), config.callbacks, CALLBACKS)
    hooks = {name for name in dir(Callback) if name.startswith("on_")}
    for number, callback in enumerate(callbacks):
        for name in (n for n in dir(callback) if n.startswith("on_") and n not in hooks):
            if near := did_you_mean(name, hooks):
                raise config.issue(("callbacks", number), f"nothing calls its {name}(){near}")
    return callbacks
