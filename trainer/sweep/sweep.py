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
from base.data.sample_rng import derive_seed
from base.errors import DivergedError, StoppedError, UsageError, UserError, WriteError
from base.runtime.device import select_device
from logger import RunDirectory
from logger.run_directory import check_run_id, new_run_id
from trainer.assembly import build_trainer
from trainer.resume import continue_run, find_config
from trainer.run import run_training
from trainer.sweep.search import Sweep, load_sweep
from trainer.sweep.study import is_left, open_study, retry, retry_lost

if TYPE_CHECKING:
    from optuna import Study, Trial

log = logging.getLogger("train")


def run_sweep(config: Path, sweep: Path, run_id: str | None, overrides: Sequence[str]) -> None:
    """Try settings as a sweep file says; write a leaderboard, a figure and the best config.

    The runs are `<run_id>-000` and so on, beside a folder `<run_id>-sweep`. With the same id, here
    or in a second process, the sweep is continued or joined.

    Raises:
        ConfigError: the sweep or a config it leads to is wrong; nothing was created.
        UsageError: Optuna is not installed, or the sweep of that id is another.
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
    warnings.filterwarnings("ignore", module="optuna")  # it rounds `high` to a whole step
    plan = load_sweep(find_config(sweep), find_config(config), overrides)
    first = plan.trial_config({})
    name = run_id or new_run_id()
    check_run_id(f"{name}-00000")
    folder = Path(first.trainer.save_dir) / first.name / f"{name}-sweep"
    study = open_study(plan, f"{first.name}/{name}", folder, num_epochs=first.trainer.epochs)
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
    write_results(study, plan, folder, is_last=True)


def run_trial(trial: "Trial", *, sweep: Sweep, runs: Path) -> float:
    """Train with a trial's values, and return the best value of the metric, NaN if it failed."""
    from optuna import TrialPruned
    from optuna.samplers import RandomSampler, TPESampler

    seed = derive_seed(sweep.seed, trial.number) % 2**32  # the same in any process
    is_tpe, study = sweep.search == "tpe", trial.study
    study.sampler = TPESampler(seed=seed, constant_liar=True) if is_tpe else RandomSampler(seed)
    values = {name: parameter.suggest(trial, name) for name, parameter in sweep.parameters.items()}
    trial.set_user_attr("run", trial.user_attrs.get("run", f"{runs}-{trial.number:03d}"))
    run = RunDirectory(Path(trial.user_attrs["run"]))
    try:
        run.acquire()
        summary = _train(sweep.trial_config(values), run, trial)
        if not summary["best"]:
            raise UserError(f"no value of {sweep.metric}")
    except (StoppedError, WriteError, KeyboardInterrupt):
        retry(study, trial)
        raise
    except _PrunedError:
        raise TrialPruned from None
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


class _PrunedError(UserError):
    """Ends the run of a trial that is pruned; no crash, so nothing is logged of it."""


class ReportToTrial(Callback):
    """Reports the monitored column of each epoch to a trial, and ends it where it is pruned."""

    def __init__(self, trial: "Trial") -> None:
        self.trial = trial

    def on_epoch_end(self, trainer: BaseTrainer, row: Mapping[str, float]) -> None:
        self.trial.report(row[trainer.monitor.column], trainer.epoch)
        if not trainer.is_finished and self.trial.should_prune():
            raise _PrunedError


# --- results ------------------------------------------------------------------------------------


def write_results(study: "Study", sweep: Sweep, folder: Path, *, is_last: bool = False) -> None:
    """Write leaderboard.csv and, of the best trial, best.yaml; at last draw and announce them.

    Raises:
        WriteError: the disk is full or cannot be written.
    """
    parts = ("number", "value", "params", "user_attrs", "duration", "state")
    table = study.trials_dataframe(parts)
    table = table.rename(columns=lambda name: re.sub("^(params|user_attrs)_", "", name))
    table = table.sort_values(["state", "value"], ascending=[True, sweep.metric[:3] == "min"])
    write_atomic(folder / "leaderboard.csv", table.to_csv(index=False))
    ranked = table[table["state"] == "COMPLETE"]
    if not ranked.empty:
        best, file = ranked.iloc[0], folder / "best.yaml"
        text = f"# python train.py -c {file}\n# {sweep.metric}: {best.value:.6g} of {best.run}\n"
        write_atomic(file, text + sweep.trial_config(study.trials[best.number].params).to_yaml())
    if is_last and not ranked.empty:
        plot_trials(study, sweep.metric, folder / "leaderboard.png")
        shown = ranked[["number", "value", "epoch", *sweep.parameters, "run"]].head(5)
        shown = shown.to_string(float_format="{:.4g}".format, index=False)
        log.info("the best of %d trials by %s:\n%s", len(table), sweep.metric, shown)
        log.info("next: python test.py -r %s", best.run)
        log.info("      python train.py -c %s", file)
    if is_last:
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
