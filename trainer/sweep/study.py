"""The study behind a sweep, in Optuna's storage: what to try next, and what was reached so far."""

import json
import shutil
import warnings
from collections.abc import Container
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base.config.schema import Config
from base.data.sample_rng import derive_seed
from base.errors import UsageError
from logger import RunDirectory
from logger.tensorboard_writer import flatten
from trainer.sweep.search import Sweep

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

LOST_AFTER = timedelta(minutes=1)  # a trial unclaimed by then is of a process that was killed


def open_study(sweep: Sweep, name: str, folder: Path, config: Config) -> "Study":
    """Return the study of that name, made if it is not there; `folder` is the sweep's.

    Raises:
        UsageError: Optuna is not installed, or the study is of another search.
        ConfigError: the storage cannot be opened.
    """
    optuna = import_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        study = optuna.create_study(
            storage=_storage(sweep.storage or str(folder / "study.log")),
            study_name=name,
            direction="minimize" if sweep.metric.startswith("min ") else "maximize",
            pruner=_pruner(sweep, config.trainer.epochs),
            load_if_exists=True,
        )
    except (OSError, ImportError, ValueError, SQLAlchemyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise sweep.issue("storage", reason) from error
    parameters = {key: value.model_dump() for key, value in sweep.parameters.items()}
    search = {"search": sweep.search, "seed": sweep.seed, "metric": sweep.metric}
    identity = flatten({"sweep": search | {"parameters": parameters}, **config.model_dump()})
    identity = json.loads(json.dumps(identity))
    stored = study.user_attrs.get("config", identity)
    if changed := [key for key in stored | identity if stored.get(key) != identity.get(key)]:
        keys = ", ".join(changed[:3])
        raise UsageError(f"{name} was begun with another {keys}; give --run-id another name")
    if not study.user_attrs:
        study.set_user_attr("config", identity)
    return study


def import_optuna() -> Any:
    """Return the library, without its own log and warnings.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError("--sweep needs Optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _storage(place: str) -> "BaseStorage":
    from optuna import storages
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if "://" in place:
        return storages.RDBStorage(place)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(place)  # sound on network disks, and on Windows
    return storages.JournalStorage(JournalFileBackend(place, lock_obj=lock))


def _pruner(sweep: Sweep, num_epochs: int) -> "BasePruner":
    from optuna import pruners

    if sweep.pruning == "median":  # the early epochs of a schedule tell little of its end
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=num_epochs // 2)
    if sweep.pruning == "hyperband":
        return pruners.HyperbandPruner(max_resource=num_epochs)
    return pruners.NopPruner()


def _sampler(sweep: Sweep, number: int) -> "BaseSampler":
    """Return what draws the values of a trial, seeded by its number, whatever was drawn before."""
    from optuna import samplers

    seed = derive_seed(sweep.seed, number) % 2**32
    if sweep.search == "tpe":
        return samplers.TPESampler(seed=seed, constant_liar=True)
    values = sweep.combination(number) if sweep.search == "grid" else {}
    return samplers.PartialFixedSampler(values, samplers.RandomSampler(seed=seed))


# --- trials -------------------------------------------------------------------------------------


def next_trial(
    study: "Study", sweep: Sweep, worker: RunDirectory, running: Container[int]
) -> "Trial | None":
    """Return a trial for `worker` to run: one that was left unfinished, else a new one, else None.

    `running` has the numbers of those that it runs already.
    """
    from optuna.trial import Trial, TrialState

    _take_over(study, worker)
    for left in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if left.user_attrs.get("worker") == worker.run_id and left.number not in running:
            trial = Trial(study, left._trial_id)
            break
    else:
        if len(study.get_trials(deepcopy=False)) >= sweep.total:
            return None
        trial = study.ask()
        if trial.number >= sweep.total:  # another machine was quicker
            study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr("worker", worker.run_id)
    study.sampler = _sampler(sweep, trial.number)
    for name, parameter in sweep.parameters.items():
        parameter.suggest(trial, name)
    return trial


def _take_over(study: "Study", worker: RunDirectory) -> None:
    """Make the trials of processes that have ended, as their locks tell, those of `worker`.

    What runs on a machine with other disks has no lock here, and is left to it.
    """
    from optuna.trial import Trial, TrialState

    for owner in map(RunDirectory, worker.path.parent.iterdir()):
        if owner.path == worker.path:
            continue
        try:
            owner.acquire()
        except UsageError:  # it lives
            continue
        for left in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            claimed = left.user_attrs.get("worker")
            is_lost = claimed is None and datetime.now() - left.datetime_start > LOST_AFTER
            if claimed == owner.run_id or is_lost:
                Trial(study, left._trial_id).set_user_attr("worker", worker.run_id)
        owner.release()
        shutil.rmtree(owner.path, ignore_errors=True)
