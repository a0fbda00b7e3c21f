"""Dispatch what a trainer logs to the console and to the writers of the config."""

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from base.base_writer import BaseWriter, Evaluation, ResumedFrom
from base.checkpoint.files import write_atomic
from base.config.schema import NOT_RESULTS, Config
from base.registry import WRITERS
from base.registry.build import build
from logger.console import format_values
from logger.run_directory import RunDirectory

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("train")


class RunLogger:
    """Logs a run: a console line per epoch, summary.json, and whatever its writers write.

    Without `run` and `writers` (other ranks, `--check`) nothing goes anywhere. A writer that fails
    says so once and is off, unless it is `required`. `is_resumed` runs have shown config and model
    before.
    """

    def __init__(
        self,
        run: RunDirectory | None = None,
        writers: Mapping[str, BaseWriter] | None = None,
        *,
        is_resumed: bool = False,
    ) -> None:
        self._run, self._is_resumed = run, is_resumed
        self.writers = dict(writers or {})  # by the name that the config has for them

    @property
    def tensorboard(self) -> Any:
        """The writer with torch's SummaryWriters, or None where TensorBoard is off."""
        return self.writers.get("tensorboard")

    def to_tensorboard(self, write: Callable[[Any], None]) -> None:
        """Write to TensorBoard if it is on; if that fails, say so and go on without it."""
        if "tensorboard" in self.writers:
            self._call("tensorboard", write)

    def _call(self, name: str, write: Callable[[Any], None]) -> None:
        writer = self.writers[name]
        try:
            write(writer)
        except Exception as error:  # a chart is not worth a run, whatever is wrong with it
            _warn_if_optional(writer, f"{name} is off from here on", error)
            del self.writers[name]
            with suppress(Exception):
                writer.close()

    def _call_all(self, method: str, *args: Any) -> None:
        for name in list(self.writers):
            self._call(name, lambda writer: getattr(writer, method)(*args))

    def log_config(self, text: str) -> None:
        """Show the config, as YAML text."""
        if not self._is_resumed:
            self._call_all("log_config", text)

    def log_model(self, model: "nn.Module", read_inputs: Callable[[], Any]) -> None:
        """Show the plain model, and inputs that are read only if a writer shows them."""
        shows = any(_overrides(type(writer), "log_model") for writer in self.writers.values())
        if shows and not self._is_resumed:
            self._call_all("log_model", model, read_inputs())

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        """Add to the training curves at the optimizer step `step`."""
        self._call_all("log_step", values, step)

    def log_epoch(
        self, row: Mapping[str, float | int], *, num_epochs: int, waiting: float = 0.0
    ) -> None:
        """Log a finished epoch.

        `row` has `epoch`, `step`, `seconds`, `samples_per_second`, `lr`, then the results;
        `waiting` is the share of time in which training waited for data.

        Raises:
            WriteError: metrics.csv cannot be written.
        """
        row = {key: value if isinstance(value, int) else float(value) for key, value in row.items()}
        self._call_all("log_epoch", row)
        if self._run is None:
            return
        results = format_values({key: row[key] for key in row if key not in NOT_RESULTS})
        timing = ""
        if "seconds" in row:  # a trainer of one's own may not tell
            timing = f"  {row['seconds']:.1f} s  {row['samples_per_second']:.0f} samples/s"
            timing += f"  waiting for data {waiting:.0%}"
        log.info("epoch %d/%d  %s%s", row["epoch"], num_epochs, results, timing)

    def log_evaluation(self, evaluation: Evaluation) -> None:
        """Report the results of test.py."""
        self._call_all("log_evaluation", evaluation)

    def flush(self) -> None:
        """Hand what was logged to the operating system; before each checkpoint."""
        self._call_all("flush")

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json and what else a finished run leaves.

        Raises:
            WriteError: summary.json cannot be written.
        """
        if self._run is None:
            return
        text = json.dumps(summary, default=str)
        summary = json.loads(text, parse_constant=lambda constant: None)  # no NaN, no infinity
        write_atomic(self._run.summary_file, json.dumps(summary, indent=2) + "\n")
        self._call_all("finish", summary)

    def close(self) -> None:
        """Close all writers."""
        self._call_all("close")
        self.writers.clear()


def open_logger(config: Config, run: RunDirectory, resume: ResumedFrom | None = None) -> RunLogger:
    """Return the logger of a training run with the writers of its config."""
    return RunLogger(run, _build_writers(config, run, resume), is_resumed=resume is not None)


def open_evaluation_logger(config: Config) -> RunLogger:
    """Return a logger of those writers of the config that report evaluations."""
    return RunLogger(writers=_build_writers(config, None, None))


def _build_writers(
    config: Config, run: RunDirectory | None, resume: ResumedFrom | None
) -> dict[str, BaseWriter]:
    """Return the writers that are on, by name; without a run, those that report evaluations."""
    runtime = {"run": run, "config": config.model_dump(), "resume": resume}
    built = {}
    for name, writer in sorted(WRITERS.own().items()):
        options = config.logger.writers.get(name, writer.on_by_default)
        if options is False or (run is None and not _overrides(writer, "log_evaluation")):
            continue
        node = {"type": name, "args": {} if options is True else options}
        try:
            built[name] = build(node, WRITERS, path=("logger", name), runtime=runtime)
        except Exception as error:  # as above
            _warn_if_optional(writer, f"{name} is off", error)
    return built


def _warn_if_optional(writer: Any, what: str, error: Exception) -> None:
    """Warn of an error of a writer, its traceback in train.log; raise that of a required one."""
    if writer.required:
        raise error
    place = "{}:{}".format(*traceback.extract_tb(error.__traceback__)[-1])  # file and line
    log.warning("%s: %s: %s (%s)", what, type(error).__name__, error, place, exc_info=error)


def _overrides(writer: type[BaseWriter], method: str) -> bool:
    return getattr(writer, method) is not getattr(BaseWriter, method)
