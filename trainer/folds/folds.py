"""Cross-validation: a config trained once for each fold, and what the folds reached together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base import BaseDataLoader
from base.checkpoint.files import write_atomic
from base.config.check import load_config
from base.config.rules import loader_parameters
from base.config.schema import NOT_RESULTS, Config
from base.errors import UsageError
from base.registry.arguments import items
from base.runtime.device import select_device
from logger.run_directory import check_run_id, new_run_id
from trainer.assembly import build_trainer
from trainer.resume import ResumePoint, find_config, start_from_config
from trainer.run import announce, run_training

if TYPE_CHECKING:
    import pandas as pd


def train_folds(path: Path, num_folds: int, run_id: str | None, overrides: Sequence[str]) -> None:
    """Train a config with each fold of its data held back in turn, and print and write a table.

    The runs are `<run_id>-fold1of5` and so on; with the same id, those there are continued.

    Raises:
        UsageError: the data cannot be cut into so many folds.
    """
    config = load_config(find_config(path), overrides)
    key, name = split_key(config), run_id or new_run_id()
    ids = [f"{name}-fold{fold}of{num_folds}" for fold in range(1, num_folds + 1)]
    check_run_id(ids[-1])
    print(f"{num_folds} folds; to continue after a stop: the same with --run-id {name}")
    rows = []
    for fold, fold_id in enumerate(ids, start=1):
        changes = [*overrides, f"{key}={fold}/{num_folds}"]
        of_fold, resume_point = start_from_config(path, changes, fold_id)
        rows.append(result_row(train_fold(of_fold, resume_point)))
        resume_point.run.release()
    table = fold_table(rows)
    file = Path(config.trainer.save_dir) / config.name / f"{name}-folds.csv"
    write_atomic(file, table.to_csv())
    print(table.to_string(float_format="{:.4g}".format), file, sep="\n")


def train_fold(config: Config, resume_point: ResumePoint) -> dict[str, Any]:
    """Train one fold, or the rest of it, and return the summary of its run."""
    if (summary := resume_point.finished_summary(config)) is not None:
        return announce(resume_point.run, summary, config)
    trainer = build_trainer(config, select_device(config.device), state=resume_point.state)
    return run_training(trainer, resume_point)


def split_key(config: Config) -> str:
    """Return the key of the config that says which fold is held back.

    Raises:
        UsageError: its validation data is not split off by the loader's `validation_split`.
    """
    loader = loader_parameters(config)
    is_stock = getattr(loader.target, "split_validation", None) is BaseDataLoader.split_validation
    if config.valid_dataset or not is_stock or "validation_split" not in loader.by_name:
        found = "a valid_dataset" if config.valid_dataset else config.data_loader.type
        raise UsageError(f"folds need data that a validation_split is taken from, found {found}")
    places = {loader.argument_name(key): key for key, _ in items(config.data_loader.args)}
    return f"data_loader.args.{places.get('validation_split', 'validation_split')}"


def result_row(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the results of a run's best epoch, or of its last where no monitor says which."""
    row = summary["best"] or summary["last"]
    return {key: row[key] for key in row if key == "epoch" or key not in NOT_RESULTS}


def fold_table(rows: Sequence[Mapping[str, float]]) -> "pd.DataFrame":
    """Return a line for each fold, then the means and (sample) standard deviations of the folds."""
    import pandas as pd

    table = pd.DataFrame(rows, index=range(1, len(rows) + 1), dtype=float)
    return pd.concat([table, table.agg(["mean", "std"])]).rename_axis("fold")
