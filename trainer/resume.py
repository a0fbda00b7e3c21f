"""Find where a run starts: anew, on from its newest state, or on a branch from an older one.

Every function raises what is wrong with what was asked for: UsageError (also of a run that another
process has), ConfigError (also of a key that a run must keep), CheckpointError (none, or damaged).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base.checkpoint.checkpoints import BEST, Checkpoints, config_of, read_checkpoint
from base.config.check import check_config, load_config
from base.config.merge import merge, parse_overrides
from base.config.schema import Config
from base.config.source import Source
from base.errors import CheckpointError, UsageError, did_you_mean
from base.runtime import distributed
from logger import RunDirectory
from logger.run_directory import check_run_id, newest_run
from trainer.config_change import FREE_KEYS, check_resume_config, warn_if_edited


@dataclass
class ResumePoint:
    """Where a run starts.

    `run` is the directory to train in, None for a new one; `state` the checkpoint to continue from,
    None to start anew; `branch_of` the run whose older state is continued in a new directory.
    """

    run: RunDirectory | None = None
    state: dict[str, Any] | None = None
    branch_of: RunDirectory | None = None

    def finished_summary(self, config: Config) -> dict[str, Any] | None:
        """Return the summary of a run that has nothing left to do, else None."""
        if self.run is None or self.state is None or not self.run.summary_file.exists():
            return None
        summary = json.loads(self.run.summary_file.read_text())
        is_over = summary["stopped_early"] or summary["epochs"] >= config.trainer.epochs
        return summary if is_over and summary["epochs"] == self.state["epoch"] else None


def find_start(
    config: Path | None, resume: Path | None, run_id: str | None, overrides: Sequence[str]
) -> tuple[Config, ResumePoint]:
    """Return what `train.py -c CONFIG`, with or without --run-id, or `-r RUN` asks for."""
    if config is not None and resume is None:
        return start_from_config(config, overrides, run_id)
    if resume is not None and config is None and run_id is None:
        return start_from_checkpoint(resume, overrides)
    raise UsageError(
        "expected either -c CONFIG for a new run or -r RUN to continue one, --run-id only with -c; "
        "a new run from old weights is -c CONFIG model.weights=CHECKPOINT"
    )


def start_from_config(
    path: Path, overrides: Sequence[str], run_id: str | None
) -> tuple[Config, ResumePoint]:
    """Return the config and a new run, or the run of that id if it exists."""
    config = load_config(find_config(path), overrides)
    if run_id is None:
        return config, ResumePoint()
    check_run_id(run_id)
    run = RunDirectory(Path(config.trainer.save_dir) / config.name / run_id)
    return config, continue_run(run, config)


def continue_run(run: RunDirectory, config: Config) -> ResumePoint:
    """Return a run's newest state to continue from, or its directory alone where it has none."""
    if run.path.exists():
        _acquire(run)
        if newest := Checkpoints(run.checkpoints).load_newest():
            check_resume_config(config, newest[1])
            return ResumePoint(run, newest[1])
    return ResumePoint(run)


def start_from_checkpoint(path: Path, overrides: Sequence[str]) -> tuple[Config, ResumePoint]:
    """Return the config and the state of a run directory, a folder of runs, or a checkpoint file.

    The newest state of a run is continued in place, any other in a new run.
    """
    run = find_run(path)
    in_place = run is not None and _is_newest(path, run)
    if in_place:
        _acquire(run)
    path, state = _read_state(path, run)
    if "optimizer" not in state:
        raise UsageError(f"{path}: holds weights only; they can start a run: model.weights={path}")
    config = stored_config(path, state, overrides)
    check_resume_config(config, state)
    if not in_place:
        return config, ResumePoint(state=state, branch_of=run)
    warn_if_edited(run.config_file, state)
    return config, ResumePoint(run, state)


def find_trained(path: Path, overrides: Sequence[str]) -> tuple[Path, dict[str, Any], Config]:
    """Return a trained model's checkpoint, its state and its config, to read and not to continue.

    `path` is a checkpoint, a run (its best state, or its newest where none is best), or a folder of
    runs (the newest of them).
    """
    run = find_run(path, trained=True)
    if path.is_dir() and (run.checkpoints / BEST).exists():
        path = run.checkpoints / BEST
    path, state = _read_state(path, run)
    if run is not None:
        warn_if_edited(run.config_file, state, ignore=FREE_KEYS)
    return path, state, stored_config(path, state, overrides)


def find_run(path: Path, *, trained: bool = False) -> RunDirectory | None:
    """Return the run of a path to it, to a folder of runs, or to one of its checkpoints.

    Of a folder of runs it is the newest, or with `trained` the newest that has a checkpoint. A
    checkpoint that lies elsewhere has none.
    """
    if path.suffix in (".yaml", ".yml", ".json"):
        raise UsageError(f"{path}: expected a run or a checkpoint; a config goes with -c")
    if path.is_file():
        run = RunDirectory(path.absolute().parent.parent)
        is_inside = path.absolute().parent == run.checkpoints and run.config_file.is_file()
        return run if is_inside else None
    if run := newest_run(path, trained=trained) or newest_run(path):
        return run
    raise CheckpointError(f"{path}: no run and no checkpoint there")


def find_config(path: Path) -> Path:
    """Return a config's path as given, or below configs/ where it is not there."""
    folder = Path("configs")
    for candidate in (path, folder / path):
        if candidate.is_file():
            return candidate
    near = did_you_mean(path.name, [file.name for file in folder.glob("*")])
    raise UsageError(f"{path}: no such config{near}; a run is continued with -r")


def stored_config(path: Path, state: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """Return the config that a checkpoint was trained with, some keys overridden."""
    try:
        stored = Source(config_of(state), {(): f"{path}:config"})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return check_config(merge(stored, parse_overrides(overrides)))


def _read_state(path: Path, run: RunDirectory | None) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint at a path, or the newest of the run there, and what it holds."""
    if path.is_file():
        return path, read_checkpoint(path)
    if (newest := Checkpoints(run.checkpoints).load_newest()) is None:
        raise CheckpointError(f"{run.path}: has no checkpoint yet; start it anew with train.py -c")
    return newest


def _is_newest(path: Path, run: RunDirectory) -> bool:
    """Tell whether a path stands for a run's newest state; the best may be a link to it."""
    states = Checkpoints(run.checkpoints).newest_first()
    return path.is_dir() or not states or path.samefile(states[0])


def _acquire(run: RunDirectory) -> None:
    if distributed.is_main():
        run.acquire()
