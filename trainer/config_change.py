"""What of its config a continued run may change: nothing that the arithmetic depends on."""

import logging
from collections.abc import Mapping
from typing import Any

from base.checkpoint.checkpoints import config_of
from base.config.schema import Config
from base.errors import ConfigError, ConfigIssue, UsageError
from base.registry import LR_SCHEDULERS
from base.registry.arguments import FALLBACKS, Parameters
from base.registry.build import nested_nodes, split_node
from base.runtime import distributed
from base.runtime.device import select_device, versions

log = logging.getLogger("train")

# Whatever starts like this may change, and `trainer.epochs` where no schedule depends on it.
FREE_KEYS = (
    "device", "logger.", "data_loader.args.num_workers", "data_loader.args.timeout",
    "data_loader.args.prefetch_factor", "trainer.save_", "trainer.keep_last",
    "trainer.log_interval",
)  # fmt: skip
LENGTHS = ("T_max", "total_steps")  # what a scheduler gets of the run where it is left out
HINT = (
    "name another --run-id, or, for a new run from these weights: python train.py -c CONFIG "
    "model.weights=CHECKPOINT"
)


def continued(config: Config, state: Mapping[str, Any]) -> Config:
    """Return the config to continue a state with; a choice the run made for itself stays.

    Raises:
        ConfigError: it changes what the arithmetic depends on; one line for each such key.
        UsageError: another number of processes would not meet the place where the run stopped.
        CheckpointError: the state holds no config.
    """
    stored = config_of(state)
    if config.data_loader.in_memory == "auto":
        config.data_loader.in_memory = stored["data_loader"]["in_memory"]
    # a config of an earlier version lacks keys that have come since
    before, now = (_flat(each.model_dump()) for each in (Config.model_validate(stored), config))
    changed = [
        key for key in sorted({*before, *now}) if repr(before.get(key)) != repr(now.get(key))
    ]
    schedule = config.lr_scheduler
    is_as_long = schedule is not None and _follows_epochs(schedule.node())
    free = FREE_KEYS if is_as_long else (*FREE_KEYS, "trainer.epochs")
    issues = []
    for key in changed:
        if not key.startswith(free):
            path = tuple(key.split("."))
            message = f"the run has {before.get(key)!r}, found {now.get(key)!r}"
            issues.append(ConfigIssue(path, message, config.where(path)))
    if is_as_long and "trainer.epochs" in changed:
        message = "the schedule takes its length from trainer.epochs"
        issues.append(ConfigIssue(("lr_scheduler",), message))
    if issues:
        raise ConfigError([*issues, ConfigIssue((), f"a run cannot change this; {HINT}")])
    _check_world_size(config, state)
    _warn_of_other_bits(config, state)
    return config


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {k: v for key, sub in tree.items() for k, v in _flat(sub, f"{path}.{key}").items()}
    return {path.lstrip("."): tree}


def _follows_epochs(scheduler: Mapping[str, Any]) -> bool:
    """Tell whether a scheduler's node, or one nested in it, takes its length from the run's."""
    name, args = split_node(scheduler)
    parameters = Parameters(LR_SCHEDULERS.find(name), LR_SCHEDULERS, ("optimizer", *FALLBACKS))
    given = parameters.named(args)
    length_is_open = parameters.fill(dict(given), dict.fromkeys(LENGTHS)) != given
    return length_is_open or any(_follows_epochs(node) for _, node in nested_nodes(args))


def _check_world_size(config: Config, state: Mapping[str, Any]) -> None:
    before, now = state["versions"]["world_size"], distributed.world_size()
    counts_steps = config.lr_scheduler is not None and config.lr_scheduler.interval == "step"
    if before != now and (state["batch"] or counts_steps):
        reason = "follows a schedule by steps" if counts_steps else "stopped within an epoch"
        raise UsageError(
            f"the run has {before} processes, found {now}; it {reason}, so start {before}: "
            f"torchrun --nproc_per_node={before} train.py ..."
        )


def _warn_of_other_bits(config: Config, state: Mapping[str, Any]) -> None:
    before, now = state["versions"], versions(select_device(config.device))
    changes = [
        f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]
    ]
    if changes and distributed.is_main():
        log.warning("%s: the result will not be the same bit for bit", ", ".join(changes))
