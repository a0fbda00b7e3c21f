"""Train in a run directory: open or resume it, log and save into it, say what was reached."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from base.base_writer import ResumedFrom
from base.checkpoint.checkpoints import BEST, Checkpoints, checkpoint_name, read_checkpoint
from base.checkpoint.files import write_atomic, write_error
from base.config.schema import NOT_RESULTS, Config
from base.errors import CheckpointError, UsageError, UserError
from base.runtime import distributed
from logger import RunDirectory, RunLogger, setup_logging
from logger.console import format_values
from logger.run_directory import acquire_new
from logger.run_logger import open_logger
from trainer.data import has_test_data
from trainer.resume import ResumePoint
from trainer.trainer import Trainer

log = logging.getLogger("train")


def run_training(trainer: Trainer, resume_point: ResumePoint) -> dict[str, Any]:
    """Train in a run's directory to the end, and return the run's summary."""
    config = trainer.config
    with open_run(config, resume_point) as (run, logger, checkpoints):
        logger.log_config(config.to_yaml())
        logger.log_model(trainer.network, lambda: trainer.data_loader.peek(trainer.device))
        summary = trainer.fit(logger=logger, checkpoints=checkpoints)
        logger.finish(summary)
    return announce(run, summary, config)


@contextmanager
def open_run(
    config: Config, resume_point: ResumePoint
) -> Iterator[tuple[RunDirectory | None, RunLogger, Checkpoints | None]]:
    """Make or enter the run's directory and yield it, where to log and where to save.

    On other ranks than the first there is none, nothing is logged and nothing saved.

    Raises:
        UsageError: another process has the run.
        WriteError: the directory cannot be written.
    """
    verbosity = config.logger.verbosity
    if not distributed.is_main():
        setup_logging(None, verbosity=verbosity, is_main=False)
        yield None, RunLogger(), None
        return
    run = resume_point.run or acquire_new(Path(config.trainer.save_dir) / config.name)
    run.acquire()
    try:
        checkpoints = Checkpoints(run.checkpoints, keep_last=config.trainer.keep_last)
        _write_first_files(run, resume_point, config, checkpoints)
        setup_logging(run.log_file, verbosity=verbosity)
        resumed = None
        if (state := resume_point.state) is not None:
            resumed = ResumedFrom(state["epoch"], state["step"], mid_epoch=state["batch"] > 0)
            log.info("continuing in %s after step %d", run.path, state["step"])
        with closing(open_logger(config, run, resumed)) as logger:
            yield run, logger, checkpoints
    except Exception as error:
        if not isinstance(error, UserError):
            log.error("%s ends with an error in its code", run.path, exc_info=True)
        raise
    finally:
        run.release()


def _write_first_files(
    run: RunDirectory, resume_point: ResumePoint, config: Config, checkpoints: Checkpoints
) -> None:
    state, is_trained = resume_point.state, bool(checkpoints.newest_first())
    if state is None and is_trained:
        raise UsageError(f"{run.path}: another process has just trained it; run the command again")
    try:
        run.checkpoints.mkdir(exist_ok=True)
        checkpoints.clean()
        run.summary_file.unlink(missing_ok=True)
        if state is None:  # what a process left that was killed before its first checkpoint
            for best in run.checkpoints.glob("model_best*.pth"):
                best.unlink()
            shutil.rmtree(run.tensorboard, ignore_errors=True)
        if resume_point.branch_of is not None:
            _copy_history(resume_point.branch_of, run, state)
    except OSError as error:
        raise write_error(run.path, error) from error
    if state is not None and not is_trained:  # the first state of a branch
        step = state["step"] if state["batch"] else None
        checkpoints.save(state, epoch=state["epoch"] + (step is not None), step=step)
    write_atomic(run.config_file, config.to_yaml())


def _copy_history(source: RunDirectory, target: RunDirectory, state: Mapping[str, Any]) -> None:
    """Copy what a run has logged, which its writers cut back, and its best models so far."""
    for file in filter(Path.exists, (source.metrics_file, source.log_file)):
        shutil.copy(file, target.path)
    if source.tensorboard.exists():
        shutil.copytree(source.tensorboard, target.tensorboard)
    copies = {path.name: path.name for path in source.checkpoints.glob("model_best*.pth")}
    if best := state["monitor"]["best_row"]:  # model_best.pth may be a later one
        copies = {checkpoint_name(best["epoch"]): BEST} | copies
    for name, new_name in copies.items():
        with suppress(CheckpointError):  # pruned, damaged, or never there
            if read_checkpoint(source.checkpoints / name)["epoch"] <= state["epoch"]:
                shutil.copy(source.checkpoints / name, target.checkpoints / new_name)


def announce(run: RunDirectory | None, summary: dict[str, Any], config: Config) -> dict[str, Any]:
    """Say what a finished run reached, where it lies and what to do next; return the summary."""
    if run is None:
        return summary
    early = ", stopped early" if summary["stopped_early"] else ""
    log.info("%s is finished after epoch %d%s", run.path, summary["epochs"], early)
    if best := summary["best"]:
        results = {name: value for name, value in best.items() if name not in NOT_RESULTS}
        scores = format_values(dict(sorted(results.items(), key=lambda kv: kv[0][:4] != "val_")))
        file = run.checkpoints / BEST
        where = f"in {file}" if file.exists() else "its state is not kept"
        log.info("best: epoch %d, %s, %s", best["epoch"], scores, where)
    if has_test_data(config):
        log.info("next: python test.py -r %s", run.path)
    if run.tensorboard.exists():
        log.info("next: tensorboard --logdir %s --host 127.0.0.1", run.path.parent)
    return summary


def folder_beside(checkpoint: Path, name: str) -> Path:
    """Return a folder for what is made of a checkpoint: in its run, or else beside the file.

    Its name is `name` for the best state, and tells of which any other is.
    """
    folder = checkpoint.parent
    if folder.name == "checkpoints":
        folder = folder.parent
    return folder / (name if checkpoint.name == BEST else f"{name}-{checkpoint.stem}")
