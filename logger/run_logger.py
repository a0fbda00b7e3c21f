"""What a trainer tells, and where each of it goes."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from base.checkpoint.files import write_atomic
from logger.console import LOGGER_NAME, format_values
from logger.csv_writer import CsvWriter
from logger.run_directory import RunDirectory
from logger.tensorboard_writer import TensorBoardWriter, flatten

if TYPE_CHECKING:
    from torch import nn

    from logger.wandb.wandb_writer import WandbWriter

TENSORBOARD, WANDB = "TensorBoard", "Weights & Biases"
NOT_RESULTS = ("epoch", "step", "seconds", "samples_per_second", "lr")  # columns of a row


class RunLogger:
    """What a trainer tells, and where it goes: console, train.log, metrics.csv, TensorBoard, W&B.

    Without a `run` (other ranks, `--check`) nothing goes anywhere. `wandb` is the whole config as
    plain data where Weights & Biases is on. On a resume, `resume_epoch` is the number of completed
    epochs and `resume_step` the restored step, `mid_epoch` when that lies within an epoch; what an
    earlier process logged after that is dropped. TensorBoard and Weights & Biases never stop a
    run: one that fails says so once and is off.
    """

    def __init__(
        self,
        run: RunDirectory | None,
        *,
        tensorboard: bool = True,
        csv: bool = True,
        wandb: Mapping[str, Any] | None = None,
        resume_epoch: int = 0,
        resume_step: int | None = None,
        mid_epoch: bool = False,
    ) -> None:
        self._run = run
        self._is_resumed = resume_step is not None
        self._rows: list[Mapping[str, float]] = []
        self._csv: CsvWriter | None = None
        self._writers: dict[str, Any] = {}
        if run is not None and csv:
            self._csv = CsvWriter(run.metrics_file)
            self._csv.cut_back(resume_epoch)
            self._rows = self._csv.rows()
        if run is not None and tensorboard:
            first = 0 if resume_step is None else resume_step + 1
            valid_first = first - 1 if self._is_resumed and mid_epoch else first
            purges = {"purge_train": first, "purge_valid": valid_first}
            self._open(TENSORBOARD, lambda: TensorBoardWriter(run.tensorboard, **purges))
        if run is not None and wandb is not None:
            self._open(WANDB, lambda: _wandb_writer(run, wandb, is_resumed=self._is_resumed))

    def _open(self, name: str, writer: Callable[[], Any]) -> None:
        try:
            self._writers[name] = writer()
        except Exception as error:  # a chart is not worth a run, whatever is wrong with it
            _warn(f"{name} is off", error)

    def _tell(self, name: str, write: Callable[[Any], None]) -> None:
        if name not in self._writers:
            return
        try:
            write(self._writers[name])
        except Exception as error:  # as above
            _warn(f"{name} is off from here on", error)
            with suppress(Exception):
                self._writers.pop(name).close()

    @property
    def tensorboard(self) -> TensorBoardWriter | None:
        """The writer, or None where TensorBoard is off."""
        return self._writers.get(TENSORBOARD)

    def to_tensorboard(self, write: Callable[[TensorBoardWriter], None]) -> None:
        """Write to TensorBoard if it is on; if that fails, say so and go on without it."""
        self._tell(TENSORBOARD, write)

    def to_wandb(self, write: Callable[["WandbWriter"], None]) -> None:
        """Write to Weights & Biases likewise."""
        self._tell(WANDB, write)

    def log_config(self, text: str) -> None:
        """Show the config, as YAML text, in TensorBoard; once, not after a resume."""
        if not self._is_resumed:
            self.to_tensorboard(lambda board: board.text("config", f"```yaml\n{text}\n```"))

    def log_model(self, model: "nn.Module", inputs: Any) -> None:
        """Show the graph of the plain `model` and a sheet of its inputs (B, ...); not after a
        resume."""
        if not self._is_resumed:
            self.to_tensorboard(lambda board: board.images("inputs", inputs))
            self.to_tensorboard(lambda board: board.graph(model, inputs))

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        """Add to the training curves at the optimizer step `step`."""
        for name in list(self._writers):
            self._tell(name, lambda writer: writer.train(values, step))

    def log_epoch(
        self, row: Mapping[str, float | int], *, num_epochs: int, waiting: float = 0.0
    ) -> None:
        """Write a finished epoch: a line on the console, a row of metrics.csv, validation curves.

        `row` has `epoch`, `step`, `seconds`, `samples_per_second`, `lr`, then the results;
        `waiting` is the share of time in which training waited for data.

        Raises:
            WriteError: metrics.csv cannot be written.
        """
        if self._run is None:
            return
        self._rows.append(dict(row))
        if self._csv is not None:
            self._csv.write(row)
        valid = {k.removeprefix("val_"): v for k, v in row.items() if k.startswith("val_")}
        self.to_tensorboard(lambda board: board.valid(valid, int(row["step"])))
        self.to_wandb(lambda writer: writer.epoch(row))
        results = format_values({k: v for k, v in row.items() if k not in NOT_RESULTS})
        timing = ""
        if {"seconds", "samples_per_second"} <= row.keys():  # a trainer of one's own may not tell
            timing = f"  {row['seconds']:.1f} s  {row['samples_per_second']:.0f} samples/s"
            timing += f"  waiting for data {waiting:.0%}"
        log = logging.getLogger(LOGGER_NAME)
        log.info("epoch %d/%d  %s%s", row["epoch"], num_epochs, results, timing)

    def flush(self) -> None:
        """Give what was told to the operating system; before each checkpoint."""
        self.to_tensorboard(lambda board: board.flush())

    def finish(self, summary: Mapping[str, Any], hparams: Mapping[str, Any]) -> None:
        """Write what a finished run leaves: summary.json, the HPARAMS tab, W&B's, curves.png.

        `hparams` is the config as plain nested data. Results in `summary` become its outcome there.

        Raises:
            WriteError: summary.json or curves.png cannot be written.
        """
        if self._run is None:
            return
        summary = _plain(summary)
        text = json.dumps(summary, indent=2, allow_nan=False)
        write_atomic(self._run.summary_file, text + "\n")
        outcome = {
            f"summary/{name}": value
            for name, value in flatten(summary).items()
            if isinstance(value, float) and name.rpartition(".")[2] not in NOT_RESULTS
        }
        self.to_tensorboard(lambda board: board.hparams(hparams, outcome))
        self.to_wandb(lambda writer: writer.finish(summary))
        self._plot_curves(str(hparams.get("name", "")), hparams.get("trainer") or {})

    def _plot_curves(self, name: str, trainer: Mapping[str, Any]) -> None:
        assert self._run is not None
        if not self._rows:
            return
        try:
            from logger.plots.plots import plot_curves
        except ImportError as error:
            _warn("no curves.png", error)
            return
        title = "  ".join(filter(None, (name, self._run.run_id)))
        monitor = str(trainer.get("monitor") or "min val_loss")
        plot_curves(self._rows, self._run.curves_file, title=title, monitor=monitor)

    def close(self) -> None:
        """Close the event files, and upload what W&B has not yet."""
        for name in list(self._writers):
            self._tell(name, lambda writer: writer.close())
        self._writers.clear()


def _wandb_writer(
    run: RunDirectory, config: Mapping[str, Any], *, is_resumed: bool
) -> "WandbWriter":
    from logger.wandb.wandb_writer import WandbWriter

    return WandbWriter(run, config, is_resumed=is_resumed)


def _warn(what: str, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    logging.getLogger(LOGGER_NAME).warning("%s: %s", what, reason)


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: no NaN or infinity, paths and the like as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
