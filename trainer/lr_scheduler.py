"""Build the learning-rate scheduler of a run, as long as the run where no length is given."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch

from base import BaseDataLoader
from base.config.rules import PLATEAU
from base.config.schema import Config, LrSchedulerConfig
from base.registry import LR_SCHEDULERS
from base.registry.arguments import FALLBACKS, Parameters
from base.registry.build import split_node
from trainer.batches import count_steps
from trainer.parts import build_part

LENGTHS = ("T_max", "total_steps")  # what a scheduler gets of the run where it is left out
LONG = 10**9  # steps, more than any run has


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
    runtime = {"optimizer": optimizer, "T_max": length, "total_steps": length}
    runtime["max_lr"] = [group["lr"] for group in optimizer.param_groups]
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
