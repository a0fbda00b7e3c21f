"""The contract of writers: where a run's curves, results and reports go."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass(frozen=True)
class ResumedFrom:
    """The state that a continued run was restored from; what was logged after it is void.

    `epoch` counts finished epochs and `step` optimizer steps; `mid_epoch` says that the step lies
    within an epoch.
    """

    epoch: int
    step: int
    mid_epoch: bool = False


@dataclass
class Evaluation:
    """The results of a trained model on its test data.

    A writer may add to `metrics` what it computes itself. `predictions` has a column (N,) for each
    of `target`, `prediction`, `loss` and, for classes, `confidence`; it is empty where `kind` is
    "". `class_names` go up to the highest class seen. `inputs_at(positions)` reads the inputs of
    the samples in those rows as the model gets them, and `folder` is where reports belong.
    """

    metrics: dict[str, float]
    predictions: Mapping[str, "Tensor"]
    kind: Literal["classification", "regression", ""]
    class_names: Sequence[str]
    inputs_at: Callable[["np.ndarray"], Any]
    folder: Path


class BaseWriter:
    """Writes what a run logs to one place; override the methods for what that place can show.

    A config turns a writer on or off under the name it is registered with:

        @WRITERS.register("slack")
        class SlackWriter(BaseWriter):
            def __init__(self, channel: str, *, run) -> None: ...

    is `logger: {slack: {channel: training}}`. Besides its options from the config, a constructor
    gets those of three arguments that it names: `run` (`logger.RunDirectory`), `config` (the whole
    config as plain data) and `resume` (`ResumedFrom`, None for a new run).

    `on_by_default` writers need not be named. An error of a writer turns it off with a warning; of
    a `required` one it ends the run.
    """

    on_by_default: ClassVar[bool] = False
    required: ClassVar[bool] = False

    def log_config(self, text: str) -> None:
        """Show the config, as YAML text; of new runs only."""

    def log_model(self, model: "nn.Module", inputs: Any) -> None:
        """Show the plain model and the inputs (B, ...) of a batch; of new runs only."""

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        """Add points to training curves at optimizer step `step`."""

    def log_epoch(self, row: Mapping[str, float | int]) -> None:
        """Add the results of an epoch: `epoch`, `step` and all other columns."""

    def log_evaluation(self, evaluation: Evaluation) -> None:
        """Report the results of test.py; a writer that does is built for it with `config` only."""

    def flush(self) -> None:
        """Hand what was logged to the operating system; called before each checkpoint."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write what a finished run leaves."""

    def close(self) -> None:
        """Release files and connections, also after an error."""
