"""What a sweep has found so far: a leaderboard, its plot, and the best config, ready to run."""

import logging
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from base.checkpoint.files import write_atomic
from trainer.sweep.search import Sweep

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study

log = logging.getLogger("train")

STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
NUM_SHOWN = 5


def run_path(folder: Path, number: int) -> Path:
    """Return the directory of a trial's run, beside the sweep's `folder`."""
    return folder.with_name(f"{folder.name.removesuffix('-sweep')}-{number:03d}")


def best_epoch(values: Mapping[int, float], mode: str) -> int | None:
    """Return the first epoch of the best value ("min" or "max"), None where none is a number."""
    finite = {epoch: value for epoch, value in sorted(values.items()) if math.isfinite(value)}
    return (min if mode == "min" else max)(finite, key=finite.get, default=None)


def leaderboard(study: "Study", sweep: Sweep, folder: Path) -> "pd.DataFrame":
    """Return a line for each trial, by rank: those done first, of these the best first.

    Besides the parameters a line has `trial`, `state`, the `value` and `epoch` of its best epoch,
    `seconds`, `run` and `error`.
    """
    import pandas as pd

    rows = []
    for trial in study.get_trials(deepcopy=False):
        if trial.params.keys() != sweep.parameters.keys():  # it never began
            continue
        epoch = best_epoch(trial.intermediate_values, sweep.mode)
        settings = [
            parameter.read(trial.params[key]) for key, parameter in sweep.parameters.items()
        ]
        rows.append((
            trial.number, STATES[trial.state.name],
            trial.intermediate_values.get(epoch, math.nan), epoch, *settings,
            trial.user_attrs.get("seconds"), str(run_path(folder, trial.number)),
            trial.user_attrs.get("error", ""),
        ))  # fmt: skip
    sign, states = 1 if sweep.mode == "min" else -1, [*STATES.values()]
    rows.sort(key=lambda row: (states.index(row[1]), sign * row[2]))
    columns = ["trial", "state", "value", "epoch", *sweep.parameters, "seconds", "run", "error"]
    table = pd.DataFrame(rows, columns=columns, index=range(1, len(rows) + 1)).rename_axis("rank")
    return table.astype({"epoch": "Int64"})


def write_results(study: "Study", sweep: Sweep, folder: Path) -> "pd.DataFrame":
    """Write leaderboard.csv, leaderboard.png and, of a trial that is done, best.yaml.

    Raises:
        WriteError: the disk is full or cannot be written.
    """
    from trainer.sweep.plot import plot_sweep

    table = leaderboard(study, sweep, folder)
    write_atomic(folder / "leaderboard.csv", table.to_csv())
    file = folder / "leaderboard.png"
    scales = {
        k: "text" if p.values else "log" if p.log else "linear" for k, p in sweep.parameters.items()
    }
    plot_sweep(table, scales, file, title=str(folder), metric=sweep.metric)
    for best in table[table["state"] == "done"].head(1).itertuples():
        file = folder / "best.yaml"
        score = f"{sweep.metric}: {best.value:.6g} at epoch {best.epoch} of {best.run}"
        config = sweep.trial_config(study.get_trials(deepcopy=False)[best.trial].params)
        write_atomic(file, f"# python train.py -c {file}\n# {score}\n{config.to_yaml()}")
    return table


def short_names(keys: Collection[str]) -> dict[str, str]:
    """Return for each key of a config its shortest end that is no other's and begins with a word.

    >>> short_names(["optimizer.args.lr", "model.args.0.args.1"])
    {'optimizer.args.lr': 'lr', 'model.args.0.args.1': 'args.1'}
    """
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        names[key] = next(
            end
            for end in ends
            if end == key
            or not (end[0].isdigit() or sum(f".{other}".endswith(f".{end}") for other in keys) > 1)
        )
    return names


def announce(table: "pd.DataFrame", sweep: Sweep, folder: Path) -> None:
    """Say what a sweep has found, where it lies and what to do next."""
    done = table[table["state"] == "done"]
    if not done.empty:
        best = done.head(NUM_SHOWN).drop(columns=["state", "run", "error"])
        best = best.rename(columns=short_names(sweep.parameters) | {"value": sweep.metric[4:]})
        shown = best.to_string(float_format="{:.4g}".format, index_names=False)
        log.info("the best of %d trials:\n%s", len(table), shown)
        log.info("next: python test.py -r %s", done.iloc[0].run)
        log.info("      python train.py -c %s", folder / "best.yaml")
    log.info("all of them: %s and .png", folder / "leaderboard.csv")
