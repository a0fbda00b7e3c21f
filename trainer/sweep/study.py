"""The Optuna study of a sweep: its storage, what prunes and draws its trials, and retries."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from base.checkpoint.files import make_folder
from base.config.schema import Config
from base.data.sample_rng import derive_seed
from base.errors import ConfigError, ConfigIssue, UsageError
from logger import RunDirectory
from logger.tensorboard_writer import flatten
from trainer.sweep.search import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


def open_study(sweep: Sweep, name: str, folder: Path, config: Config) -> "Study":
    """Return the study of that name, made if it is not there, a grid with its trials in the queue.

    Raises:
        UsageError: the study is of another search.
        ConfigError: the storage cannot be opened.
    """
    from optuna import create_study
    from sqlalchemy.exc import SQLAlchemyError

    try:
        study = create_study(
            storage=_open_storage(sweep.storage or str(folder / "study.log")),
            study_name=name,
            direction="minimize" if sweep.metric.startswith("min ") else "maximize",
            pruner=_make_pruner(sweep, config.trainer.epochs),
            load_if_exists=True,
        )
    except (OSError, ImportError, ValueError, SQLAlchemyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError([ConfigIssue(("storage",), reason, sweep._places["storage"])]) from error
    search = {"sweep": sweep.model_dump(exclude={"num_trials", "pruning", "storage"})}
    identity = flatten(search | config.model_dump(exclude={"device"}))
    stored = study.user_attrs.get("config", identity)
    if changed := [key for key in stored | identity if stored.get(key) != identity.get(key)]:
        keys = ", ".join(changed[:3])
        raise UsageError(f"{name} was begun with another {keys}; give --run-id another name")
    study.set_user_attr("config", identity)
    for values in sweep.combinations() if sweep.search == "grid" else ():
        study.enqueue_trial(values, skip_if_exists=True)
    return study


def _open_storage(place: str) -> "BaseStorage":
    from optuna import storages
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if "://" in place:
        return storages.RDBStorage(place)
    make_folder(Path(place).parent)
    lock = JournalFileOpenLock(place)  # sound on network disks, and on Windows
    return storages.JournalStorage(JournalFileBackend(place, lock_obj=lock))


def _make_pruner(sweep: Sweep, num_epochs: int) -> "BasePruner":
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if sweep.pruning == "median":  # the early epochs of a schedule tell little of its end
        return MedianPruner(n_startup_trials=5, n_warmup_steps=num_epochs // 2)
    return HyperbandPruner(max_resource=num_epochs) if sweep.pruning == "hyperband" else NopPruner()


def make_sampler(sweep: Sweep, number: int) -> "BaseSampler":
    """Return what draws the values of a trial, by its number the same in any process."""
    from optuna import samplers

    seed = derive_seed(sweep.seed, number) % 2**32
    if sweep.search == "tpe":
        return samplers.TPESampler(seed=seed, constant_liar=True)
    return samplers.RandomSampler(seed=seed)


def is_left(study: "Study", num_trials: int | None) -> bool:
    """Tell whether there is a trial to run: one in the queue, or, without a grid, a new one."""
    trials = study.get_trials(deepcopy=False)
    runs = {trial.user_attrs.get("run", trial.number) for trial in trials}
    is_waiting = any(trial.state.name == "WAITING" for trial in trials)
    return is_waiting or len(runs) < (num_trials or 0)


def retry(study: "Study", trial: "FrozenTrial") -> None:
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
