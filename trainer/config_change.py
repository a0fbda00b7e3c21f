"""What a continued run may change of its config: nothing that the arithmetic depends on."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from base.checkpoint.checkpoints import config_of
from base.config.merge import read_config
from base.config.schema import Config
from base.errors import ConfigError, ConfigIssue, KeyPath, UsageError, format_value
from base.runtime import distributed
from base.runtime.device import select_device, versions
from trainer.parts import takes_length_of_run

log = logging.getLogger("train")

# Whatever starts like this may change; `trainer.epochs` only where no schedule depends on it.
FREE_KEYS = (
    "device", "logger.", "data_loader.in_memory", "data_loader.args.num_workers",
    "data_loader.args.timeout", "data_loader.args.prefetch_factor", "trainer.save_period",
    "trainer.save_steps", "trainer.keep_last", "trainer.log_interval", "trainer.epochs",
)  # fmt: skip
HINT = (
    "a run cannot change this, nor its epochs where the schedule is as long; name another "
    "--run-id, or start from these weights: python train.py -c CONFIG model.weights=CHECKPOINT"
)


def check_resume_config(config: Config, state: Mapping[str, Any]) -> None:
    """Check that a state can be continued with a config; warn where other bits may come out.

    Raises:
        ConfigError: it changes what the arithmetic depends on; one line for each such key.
        UsageError: another number of processes would not meet the place where the run stopped.
    """
    has_fixed_length = takes_length_of_run(config.lr_scheduler)
    free = tuple(key for key in FREE_KEYS if key != "trainer.epochs" or not has_fixed_length)
    issues = [
        ConfigIssue(
            path,
            f"the run has {format_value(before)}, found {format_value(now)}",
            config.where(path),
        )
        for path, before, now in _differences(config_of(state), config.model_dump())
        if not ".".join(path).startswith(free)
    ]
    if issues:
        raise ConfigError([*issues, ConfigIssue((), HINT)])
    _check_world_size(config, state)
    _warn_of_other_bits(config, state)


def warn_if_edited(file: Path, state: Mapping[str, Any], *, ignore: tuple[str, ...] = ()) -> None:
    """Warn of a config.yaml that differs from the checkpoint's own config, the one that counts."""
    try:
        found = read_config(file).values
    except ConfigError:
        found = {}  # then all of it differs
    keys = [".".join(path) for path, _, _ in _differences(config_of(state), found)]
    keys = [key for key in keys if not key.startswith(ignore)]
    if keys and distributed.is_main():
        text = "%s was edited (%s), but the checkpoint's own config counts; give KEY=VALUE instead"
        log.warning(text, file, ", ".join(keys))


def _differences(before: Any, now: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Yield the keys, to any depth, at which two configs differ, with both values."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        if repr(before) != repr(now):
            yield path, before, now
        return
    for key in sorted({*before, *now}):
        yield from _differences(before.get(key), now.get(key), (*path, key))


def _check_world_size(config: Config, state: Mapping[str, Any]) -> None:
    before, now = state["versions"]["world_size"], distributed.world_size()
    counts_steps = config.lr_scheduler is not None and config.lr_scheduler.interval == "step"
    if before != now and (state["batch"] or counts_steps):
        raise UsageError(
            f"the run has {before} processes, found {now}; within an epoch, or with a schedule by "
            f"steps, it takes as many: torchrun --nproc_per_node={before} train.py ..."
        )


def _warn_of_other_bits(config: Config, state: Mapping[str, Any]) -> None:
    before, now = state["versions"], versions(select_device(config.device))
    changes = [
        f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]
    ]
    if changes and distributed.is_main():
        log.warning("%s: the result will not be the same bit for bit", ", ".join(changes))
