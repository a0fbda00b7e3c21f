"""Run the trials of a sweep one after another, each in a run of its own, and rank them."""

import io
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base import BaseTrainer, Callback
from base.checkpoint.files import make_folder, write_atomic
from base.config.schema import Config
from base.errors import DivergedError, StoppedError, UsageError, UserError, WriteError
from base.runtime.device import select_device
from logger import RunDirectory
from logger.run_directory import check_run_id, new_run_id
from trainer.assembly import build_trainer
from trainer.resume import continue_run, find_config
from trainer.run import run_training
from trainer.sweep.search import Sweep, load_sweep
from trainer.sweep.study import is_left, make_sampler, open_study, retry, retry_lost

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study, Trial

log = logging.getLogger("train")


def run_sweep(config: Path, sweep: Path, run_id: str | None, overrides: Sequence[str]) -> None:
    """Try settings as a sweep file says; write a leaderboard, a figure and the best config.

    The runs are `<run_id>-000` and so on, beside a folder `<run_id>-sweep`. With the same id, here
    or in a second process, the sweep is continued or joined.

    Raises:
        ConfigError: the sweep or a config it leads to is wrong; nothing was created.
        UsageError: Optuna is not installed.
        UserError: the first trial met something else than a loss that is not finite.
        StoppedError: a signal came; the trial has saved and can be continued.
        WriteError: the disk is full or cannot be written.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError("a sweep needs Optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    plan = load_sweep(find_config(sweep), find_config(config), overrides)
    first = plan.trial_config({})
    name = run_id or new_run_id()
    check_run_id(f"{name}-00000")
    folder = Path(first.trainer.save_dir) / first.name / f"{name}-sweep"
    study = open_study(plan, f"{first.name}/{name}", folder, first)
    make_folder(folder)
    log.info("%s: to continue or to join: the same with --run-id %s", folder, name)
    objective = partial(run_trial, sweep=plan, runs=folder.with_name(name))
    try:
        while retry_lost(study) or is_left(study, plan.num_trials):
            study.optimize(objective, n_trials=1, gc_after_trial=True)
            write_results(study, plan, folder)
    except StoppedError as error:
        message = f"the sweep was stopped; continue with the same and --run-id {name}"
        raise StoppedError(message, exit_code=error.exit_code) from error
    announce(study, plan, folder)


def run_trial(trial: "Trial", *, sweep: Sweep, runs: Path) -> float:
    """Train with a trial's values, and return the best value of the metric, NaN if it failed."""
    study = trial.study
    study.sampler = make_sampler(sweep, trial.number)
    values = {name: parameter.suggest(trial, name) for name, parameter in sweep.parameters.items()}
    trial.set_user_attr("run", trial.user_attrs.get("run", f"{runs}-{trial.number:03d}"))
    run = RunDirectory(Path(trial.user_attrs["run"]))
    try:
        run.acquire()
        summary = _train(sweep.trial_config(values), run, trial)
        if summary["best"] is None:
            raise UserError(f"no value of {sweep.metric}")
    except (StoppedError, WriteError, KeyboardInterrupt):
        retry(study, study.get_trials()[trial.number])
        raise
    except UserError as error:
        trial.set_user_attr("error", str(error).splitlines()[-1])
        if trial.number == 0 and error.exit_code != DivergedError.exit_code:
            raise  # the others would meet it too
        return math.nan
    finally:
        run.release()
    trial.set_user_attr("epoch", summary["best"]["epoch"])
    return summary["best"][sweep.metric.split()[1]]


def _train(config: Config, run: RunDirectory, trial: "Trial") -> Mapping[str, Any]:
    """Train a new run, or the rest of it, and return its summary."""
    resume_point = continue_run(run, config)
    if (summary := resume_point.finished_summary(config)) is not None:
        return summary
    trainer = build_trainer(config, select_device(config.device), state=resume_point.state)
    trainer.callbacks.append(ReportToTrial(trial))
    return run_training(trainer, resume_point)


class ReportToTrial(Callback):
    """Reports the monitored column of each epoch to a trial, and ends it where it is pruned."""

    def __init__(self, trial: "Trial") -> None:
        self.trial = trial

    def on_epoch_end(self, trainer: BaseTrainer, row: Mapping[str, float]) -> None:
        from optuna import TrialPruned

        self.trial.report(row[trainer.monitor.column], trainer.epoch)
        if not trainer.is_finished and self.trial.should_prune():
            raise TrialPruned


# --- results ------------------------------------------------------------------------------------


def write_results(study: "Study", sweep: Sweep, folder: Path) -> "pd.DataFrame":
    """Write leaderboard.csv and, of the best trial, best.yaml; return the leaderboard.

    Raises:
        WriteError: the disk is full or cannot be written.
    """
    parts = ("number", "value", "params", "user_attrs", "duration", "state")
    table = study.trials_dataframe(parts)
    table = table.rename(columns=lambda name: re.sub("^(params|user_attrs)_", "", name))
    table = table.sort_values(["state", "value"], ascending=[True, sweep.metric[:3] == "min"])
    write_atomic(folder / "leaderboard.csv", table.to_csv(index=False))
    if "COMPLETE" in table["state"].values:
        best, file = study.best_trial, folder / "best.yaml"
        attributes = best.user_attrs
        score = f"{sweep.metric}: {best.value:.6g} at epoch {attributes['epoch']}"
        text = f"# python train.py -c {file}\n# {score} of {attributes['run']}\n"
        write_atomic(file, text + sweep.trial_config(best.params).to_yaml())
    return table


def announce(study: "Study", sweep: Sweep, folder: Path) -> None:
    """Draw the trials, and say what a sweep has found, where it lies and what to do next."""
    table = write_results(study, sweep, folder)
    best = table[table["state"] == "COMPLETE"].head(5)
    if not best.empty:
        plot_trials(study, sweep.metric, folder / "leaderboard.png")
        shown = best[["number", "value", "epoch", *sweep.parameters, "run"]]
        shown = shown.to_string(float_format="{:.4g}".format, index=False)
        log.info("the best of %d trials by %s:\n%s", len(table), sweep.metric, shown)
        log.info("next: python test.py -r %s", best.iloc[0].run)
        log.info("      python train.py -c %s", folder / "best.yaml")
    log.info("all of them: %s", folder / "leaderboard.csv")


def plot_trials(study: "Study", metric: str, path: Path) -> None:
    """Draw the value of each complete trial over each parameter: Optuna's slice plot."""
    import matplotlib.pyplot as plt
    from numpy import ravel
    from optuna.visualization.matplotlib import plot_slice

    with plt.rc_context():  # Optuna sets a style
        panels = ravel(plot_slice(study, target_name=metric))
        figure = panels[0].figure
        figure.set_size_inches(3.5 * len(panels) + 1, 4)
        for axes in panels:  # else labels overlap
            axes.tick_params(axis="x", which="both", rotation=90, labelsize=8)
            axes.set_xlabel(axes.get_xlabel(), fontsize=9)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=120, bbox_inches="tight")
        plt.close(figure)
    write_atomic(path, picture.getvalue())
