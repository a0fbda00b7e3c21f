"""A search over a config's settings: each trial a process and a run of its own."""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from base.checkpoint.files import make_folder
from base.errors import ConfigError, StoppedError, UsageError, WriteError
from base.runtime.stop_signal import EXIT_CODES, StopSignal
from logger import RunDirectory, setup_logging
from logger.console import format_values
from logger.run_directory import acquire_new, check_run_id, new_run_id
from trainer.resume import find_config
from trainer.sweep.job import Job
from trainer.sweep.results import (
    announce,
    best_epoch,
    run_path,
    short_names,
    write_results,
)
from trainer.sweep.search import Sweep, load_sweep
from trainer.sweep.study import import_optuna, next_trial, open_study

if TYPE_CHECKING:
    from optuna import Study, Trial

log = logging.getLogger("train")

SECONDS_BETWEEN_LOOKS = 0.2


def run_sweep(config: Path, sweep: Path, run_id: str | None, overrides: Sequence[str]) -> None:
    """Try settings as a sweep file says; write a leaderboard, its plot and the best config.

    The runs are `<run_id>-000` and so on, beside a folder `<run_id>-sweep`. With the same id, on
    this machine or another, the sweep is continued or joined.

    Raises:
        ConfigError: the sweep or a config it leads to is wrong; nothing was created.
        UsageError: Optuna is not installed, or the first trial found a mistake.
        StoppedError: a signal came; what was running has saved and can be continued.
        WriteError: the disk is full or cannot be written.
    """
    import_optuna()
    plan = load_sweep(find_config(sweep), find_config(config), overrides)
    first = plan.trial_config({})
    name = run_id or new_run_id()
    check_run_id(f"{name}-{plan.total:05d}")
    folder = Path(first.trainer.save_dir) / first.name / f"{name}-sweep"
    study = open_study(plan, f"{first.name}/{name}", folder, first)
    worker = acquire_new(folder / "workers")
    setup_logging(folder / "sweep.log")
    text = "%s: %d trials; to continue or to join in: the same with --run-id %s"
    log.info(text, folder, plan.total, name)
    try:
        with StopSignal() as stop:
            _Pool(plan, study, worker, folder).work(stop)
        if stop.number:
            message = f"the sweep was stopped; continue with the same and --run-id {name}"
            raise StoppedError(message, exit_code=EXIT_CODES[stop.number])
    finally:
        worker.release()
    shutil.rmtree(worker.path, ignore_errors=True)
    announce(write_results(study, plan, folder), plan, folder)


class _Pool:
    """The trials that one command runs at once, by slot, and what is written of all of them."""

    def __init__(self, sweep: Sweep, study: "Study", worker: RunDirectory, folder: Path) -> None:
        self.sweep, self.study, self.worker, self.folder = sweep, study, worker, folder
        self.jobs: dict[int, Job] = {}
        make_folder(folder / "trials")

    def work(self, stop: StopSignal) -> None:
        """Run trials until there are no more, or until a signal comes, which is passed on."""
        bar = tqdm(total=self.sweep.total, unit=" trials", leave=False, disable=None)
        try:
            while not stop.number and self._fill():
                for slot, job in list(self.jobs.items()):
                    if (code := job.look(slot, self.sweep.parallel)) is not None:
                        self._finish(self.jobs.pop(slot), code)
                bar.n = sum(trial.state.is_finished() for trial in self._trials())
                bar.refresh()
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            bar.close()
            for job in self.jobs.values():
                job.stop()
            for job in self.jobs.values():
                job.close()

    def _trials(self) -> list:
        return self.study.get_trials(deepcopy=False)

    def _fill(self) -> bool:
        """Prepare trials for the free slots, and tell whether there is any to run."""
        for slot in sorted({*range(self.sweep.parallel)} - self.jobs.keys()):
            running = [job.trial.number for job in self.jobs.values()]
            while trial := next_trial(self.study, self.sweep, self.worker, running):
                try:
                    config = self.sweep.trial_config(trial.params)
                except ConfigError as error:  # each value fits, but not all of them together
                    self._fail(trial, 2, str(error))
                    continue
                run = RunDirectory(run_path(self.folder, trial.number))
                file = self.folder / "trials" / f"{run.run_id}.yaml"
                values = dict(self._trials()[trial.number].intermediate_values)
                self.jobs[slot] = Job(trial, values, config, run, file)
                break
        return bool(self.jobs)

    def _finish(self, job: Job, code: int) -> None:
        """Record how a trial has ended.

        Raises:
            WriteError: it met a full disk, as the next would.
            UsageError: it found a mistake before any trial came to an end.
        """
        error = job.close()
        if code == WriteError.exit_code:
            raise WriteError(error)
        epoch = best_epoch(job.values, self.sweep.mode)
        if job.is_pruned:
            self._tell(job.trial, "PRUNED")
        elif code == 0 and epoch is not None:
            self._tell(job.trial, "COMPLETE", job.values[epoch])
        else:
            words = f"no value of {self.sweep.metric}" if code == 0 else "it left no message"
            self._fail(job.trial, code, error or words)

    def _fail(self, trial: "Trial", code: int, error: str) -> None:
        trial.set_user_attr("error", f"exit {code}: {error.splitlines()[-1]}")
        self._tell(trial, "FAIL")
        succeeded = [t for t in self._trials() if t.state.name in ("COMPLETE", "PRUNED")]
        if code == UsageError.exit_code and not succeeded:
            raise UsageError(error)

    def _tell(self, trial: "Trial", state: str, value: float | None = None) -> None:
        from optuna.trial import TrialState

        self.study.tell(trial, value, state=TrialState[state])
        table = write_results(self.study, self.sweep, self.folder)
        row = table[table["trial"] == trial.number].iloc[0]
        column = self.sweep.metric[4:]
        result = row.error or f"{column} {row.value:.4g} at epoch {row.epoch}"
        settings = {name: row[key] for key, name in short_names(self.sweep.parameters).items()}
        log.info("%s %s  %s  %s", row.run, row.state, result, format_values(settings))
