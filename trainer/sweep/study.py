"""The Optuna study of a sweep: its storage, what prunes its trials, and retries."""

from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from base.checkpoint.files import make_folder
from base.errors import UsageError
from logger import RunDirectory
from trainer.sweep.search import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial


def open_study(sweep: Sweep, name: str, folder: Path, *, num_epochs: int) -> "Study":
    """Return the study of that name, made if it is not there, a grid with its trials in the queue.

    Raises:
        UsageError: the study is of another search, or the storage cannot be opened.
    """
    from optuna import create_study, pruners
    from sqlalchemy.exc import SQLAlchemyError

    pruner = pruners.NopPruner()
    if sweep.pruning == "median":  # the early epochs of a schedule tell little of its end
        pruner = pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=num_epochs // 2)
    elif sweep.pruning == "hyperband":
        pruner = pruners.HyperbandPruner(max_resource=num_epochs)
    storage = sweep.storage or str(folder / "study.log")
    try:
        study = create_study(
            storage=storage if "://" in storage else _open_journal(Path(storage)),
            study_name=name,
            direction="minimize" if sweep.metric.startswith("min ") else "maximize",
            pruner=pruner,
            load_if_exists=True,
        )
    except (OSError, ImportError, ValueError, SQLAlchemyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"storage: {storage} cannot be opened: {reason}") from error
    search = sweep.model_dump(include={"metric", "parameters"})
    if study.user_attrs.get("search", search) != search:
        message = "was begun with another metric or other parameters; give --run-id another name"
        raise UsageError(f"{name} {message}")
    study.set_user_attr("search", search)
    if sweep.search == "grid":  # the last parameter changes fastest
        for values in product(*(parameter.grid() for parameter in sweep.parameters.values())):
            trial = dict(zip(sweep.parameters, values, strict=True))
            study.enqueue_trial(trial, skip_if_exists=True)
    return study


def _open_journal(path: Path) -> "BaseStorage":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    make_folder(path.parent)
    lock = JournalFileOpenLock(str(path))  # sound on network disks, and on Windows
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def is_left(study: "Study", num_trials: int | None) -> bool:
    """Tell whether there is a trial to run: one in the queue, or, without a grid, a new one."""
    trials = study.get_trials(deepcopy=False)
    runs = {trial.user_attrs.get("run", trial.number) for trial in trials}
    is_waiting = any(trial.state.name == "WAITING" for trial in trials)
    return is_waiting or len(runs) < (num_trials or 0)


def retry(study: "Study", trial: "Trial | FrozenTrial") -> None:
    """Put a trial's values into the queue again, for its run to be continued."""
    study.enqueue_trial(trial.params, user_attrs={"run": trial.user_attrs["run"]})


def retry_lost(study: "Study") -> None:
    """Retry the trials of killed processes: those whose run is here, and locked by nobody."""
    for trial in study.get_trials(deepcopy=False):
        run = RunDirectory(Path(trial.user_attrs.get("run", "(none)")))
        if trial.state.name != "RUNNING" or not run.path.is_dir():
            continue
        with suppress(UsageError):  # its process lives
            run.acquire()
            if study.get_trials()[trial.number].state == trial.state:  # none was quicker
                study.tell(trial.number, state=type(trial.state).FAIL)
                retry(study, trial)
            run.release()
