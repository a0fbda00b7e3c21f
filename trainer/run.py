"""Where a run starts from and lives: new, continued in place, or branched off an older state."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base import distributed
from base.base_trainer import versions
from base.checkpoint import (
    BEST,
    Checkpoints,
    checkpoint_name,
    config_of,
    place_of,
    read_checkpoint,
)
from base.config import Config
from base.config_check import check_tree, load_config
from base.config_file import merge, parse_overrides, read_config
from base.config_text import parse_text
from base.errors import CheckpointError, ConfigError, Mistake, UsageError
from base.files import write_atomic, write_error
from logger import RunDirectory, RunLogger, setup_logging
from logger.run_directory import acquire_new, check_run_id, newest_run

log = logging.getLogger("train")

# What a continued run may change: nothing that the arithmetic depends on.
FREE_KEYS = (
    "device", "logger", "data_loader.args.num_workers", "data_loader.args.timeout",
    "data_loader.args.prefetch_factor", "trainer.epochs", "trainer.save_", "trainer.keep_last",
    "trainer.log_interval",
)  # fmt: skip


@dataclass
class Start:
    """Where a run starts from.

    `run` is the directory to use, None for a new one; `state` the checkpoint to continue from;
    `history` the run whose records go along when an older state is continued in a new directory.
    """

    run: RunDirectory | None = None
    state: dict[str, Any] | None = None
    history: RunDirectory | None = None

    def finished_summary(self, config: Config) -> dict[str, Any] | None:
        """Return the summary of a run that has nothing left to do, else None."""
        if self.run is None or self.state is None or not self.run.summary_file.exists():
            return None
        bad_epochs = self.state["monitor"]["num_bad_epochs"]
        stopped = 0 < config.trainer.early_stop <= bad_epochs
        if self.state["batch"] or not (self.state["epoch"] >= config.trainer.epochs or stopped):
            return None
        return json.loads(self.run.summary_file.read_text())


def start_from_config(
    path: Path, overrides: Sequence[str], run_id: str | None
) -> tuple[Config, Start]:
    """Return the config and a new run, or the run of that id if it exists.

    Raises:
        ConfigError: the config is wrong, or differs from the run's in what must not change.
        CheckpointError: the run has checkpoints, and none is valid.
    """
    config = load_config(find_config(path), overrides)
    if run_id is None:
        return config, Start()
    check_run_id(run_id)
    run = RunDirectory(Path(config.trainer.save_dir) / config.name / run_id)
    if not run.path.exists():
        return config, Start(run)
    _acquire(run)
    newest = Checkpoints(run.checkpoints).load_newest()
    if newest is None:
        return config, Start(run)
    return continued(config, newest[1]), Start(run, newest[1])


def start_from_checkpoint(path: Path, overrides: Sequence[str]) -> tuple[Config, Start]:
    """Return the config and the state of a run directory, a folder of runs, or a checkpoint file.

    The newest state of a run is continued in place, any other in a new run.

    Raises:
        CheckpointError: there is nothing to continue from, or nothing valid.
        ConfigError: an override changes what must not change.
    """
    if path.is_file():
        state = read_checkpoint(path)
        folder = path.resolve().parent.parent if path.parent.name == "checkpoints" else None
        run = newest_run(folder) if folder else None
    else:
        run = newest_run(path)
        if run is None:
            raise CheckpointError(f"{path}: no run and no checkpoint there")
        _acquire(run)
        newest = Checkpoints(run.checkpoints).load_newest()
        if newest is None:
            raise CheckpointError(f"{run.path}: has no checkpoint yet; start it anew with -c")
        path, state = newest
    config = continued(stored_config(path, state, run, overrides), state)
    if run is None:
        return config, Start(state=state)
    newest_places = [place_of(p.name) for p in Checkpoints(run.checkpoints).newest_first()]
    if not newest_places or place_of(checkpoint_name(*_place(state))) >= newest_places[0]:
        _acquire(run)
        return config, Start(run, state)
    return config, Start(state=state, history=run)


def find_config(path: Path) -> Path:
    """Return a config's path as given, or below configs/ where it is not there."""
    below = Path("configs") / path
    return below if not path.exists() and below.exists() else path


def stored_config(
    path: Path, state: Mapping[str, Any], run: RunDirectory | None, overrides: Sequence[str]
) -> Config:
    """Return the config that a checkpoint was trained with, some keys overridden."""
    try:
        stored = json.dumps(config_of(state))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if run is not None and run.config_file.is_file():
        tree = read_config(run.config_file)
    else:
        mistakes: list[Mistake] = []
        tree = parse_text(stored, f"{path}:config.json", mistakes)
        if tree is None:
            raise ConfigError(mistakes)
    return check_tree(merge(tree, parse_overrides(overrides)))


def continued(config: Config, state: Mapping[str, Any]) -> Config:
    """Return the config to continue a state with.

    Raises:
        ConfigError: it changes what the arithmetic depends on; one line for each such key.
        CheckpointError: the state holds no config.
    """
    stored = config_of(state)
    if config.data_loader.in_memory == "auto":
        config.data_loader.in_memory = stored["data_loader"]["in_memory"]
    before, now = _flat(stored), _flat(config.model_dump())
    mistakes = []
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) == now.get(key) or _may_change(key, config):
            continue
        message = f"the run has {before.get(key)!r}, found {now.get(key)!r}; a run cannot change it"
        mistakes.append(Mistake(config.where(key), key, message))
    if mistakes:
        hint = (
            "for a new run from these weights: python train.py -c CONFIG model.weights=CHECKPOINT"
        )
        raise ConfigError([*mistakes, Mistake("", "", hint)])
    _warn_of_other_bits(state, changed_device=before.get("device") != now.get("device"))
    return config


def _may_change(key: str, config: Config) -> bool:
    if key == "trainer.epochs" and _schedule_depends_on_epochs(config):
        return False
    return any(key == free or key.startswith((f"{free}.", free)) for free in FREE_KEYS)


def _schedule_depends_on_epochs(config: Config) -> bool:
    scheduler = config.lr_scheduler
    if scheduler is None or not isinstance(scheduler.args, dict):
        return False
    lengths = {"OneCycleLR": {"total_steps", "epochs"}, "CosineAnnealingLR": {"T_max"}}
    return not lengths.get(scheduler.type, {""}) & {"", *scheduler.args}


def _warn_of_other_bits(state: Mapping[str, Any], *, changed_device: bool) -> None:
    before, now = state["versions"], versions()
    changes = [
        f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]
    ]
    if changed_device:
        changes.append("another device")
    if changes:
        log.warning("%s: the result will not be the same bit for bit", ", ".join(changes))


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree:
        return {k: v for key, sub in tree.items() for k, v in _flat(sub, f"{path}.{key}").items()}
    return {path.lstrip("."): tree}


def _place(state: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return the epoch and, within it, the step that a state's file is named after."""
    if state["batch"]:
        return state["epoch"] + 1, state["step"]
    return state["epoch"], None


def _acquire(run: RunDirectory) -> None:
    if distributed.is_main():
        run.acquire()


@contextmanager
def open_run(
    config: Config, start: Start
) -> Iterator[tuple[RunDirectory | None, RunLogger, Checkpoints | None]]:
    """Make or enter the run's directory and yield it, where to log and where to save.

    On other ranks than the first there is none, nothing is logged and nothing saved.

    Raises:
        UsageError: another process has the run.
        WriteError: the directory cannot be written.
    """
    settings = config.logger
    if not distributed.is_main():
        setup_logging(None, verbosity=settings.verbosity, is_main=False)
        yield None, RunLogger(None), None
        return
    run = start.run or acquire_new(Path(config.trainer.save_dir) / config.name)
    run.acquire()
    checkpoints = Checkpoints(run.checkpoints, keep_last=config.trainer.keep_last)
    if start.state is None and checkpoints.newest_first():
        raise UsageError(f"{run.path}: another process has just trained it; run the command again")
    try:
        _write_history(run, start, config, checkpoints)
    except OSError as error:
        raise write_error(run.path, error) from error
    setup_logging(run.log_file, verbosity=settings.verbosity)
    state = start.state or {"epoch": 0, "step": None, "batch": 0}
    logger = RunLogger(
        run,
        tensorboard=settings.tensorboard,
        csv=settings.csv,
        resume_epoch=state["epoch"],
        resume_step=state["step"],
        mid_epoch=state["batch"] > 0,
    )
    try:
        yield run, logger, checkpoints
    finally:
        logger.close()
        run.release()


def _write_history(
    run: RunDirectory, start: Start, config: Config, checkpoints: Checkpoints
) -> None:
    run.checkpoints.mkdir(exist_ok=True)
    checkpoints.clean()
    run.summary_file.unlink(missing_ok=True)
    if start.history is not None:
        _copy_records(start.history, run, start.state)
    if start.state is not None and not checkpoints.newest_first():
        epoch, step = _place(start.state)
        checkpoints.save(start.state, epoch=epoch, step=step)
    elif start.state is None and run.tensorboard.exists():
        shutil.rmtree(run.tensorboard)  # of a process killed before its first checkpoint
    write_atomic(run.config_file, config.to_yaml())


def _copy_records(source: RunDirectory, target: RunDirectory, state: Mapping[str, Any]) -> None:
    for file in (source.metrics_file, source.log_file):
        if file.exists():
            shutil.copy(file, target.path / file.name)
    if source.tensorboard.exists():
        shutil.copytree(source.tensorboard, target.tensorboard)
    best = source.checkpoints / BEST
    if best.exists() and read_checkpoint(best)["epoch"] == state["monitor"]["best_epoch"]:
        shutil.copy(best, target.checkpoints / BEST)


def announce(
    run: RunDirectory | None, summary: dict[str, Any], *, finished_before: bool = False
) -> dict[str, Any]:
    """Say what a finished run reached, where it lies and what to do next; return the summary."""
    if run is None:
        return summary
    best = summary["best"]
    state = (
        "is finished"
        if finished_before
        else "stopped early"
        if summary["stopped_early"]
        else "done"
    )
    log.info("%s %s after %d epochs", run.path, state, summary["epochs"])
    if best:
        scores = "  ".join(f"{k} {v:.4g}" for k, v in best.items() if k != "epoch")
        log.info("best: epoch %d, %s, in %s", best["epoch"], scores, run.checkpoints / BEST)
    if run.curves_file.exists():
        log.info("curves: %s", run.curves_file)
    log.info("next: python test.py -r %s", run.path)
    if run.tensorboard.exists():
        log.info("      tensorboard --logdir %s --host 127.0.0.1", run.path.parent)
    if finished_before:
        log.info("      python train.py -r %s trainer.epochs=N  to go on", run.path)
    return summary
