"""Curves, config, graph, inputs and hyperparameters of a run in TensorBoard."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from base.base_writer import BaseWriter, ResumedFrom
from base.config.schema import NOT_RESULTS
from base.registry import WRITERS
from base.runtime.device import rng_state, set_rng_state
from logger.event_file import open_events
from logger.run_directory import RunDirectory

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger("train")

MAX_IMAGES = 32


@WRITERS.register("tensorboard")
class TensorBoardWriter(BaseWriter):
    """Writes two event folders, train/ and valid/, so that a tag's two curves share one chart.

    `train_events` and `valid_events` are torch SummaryWriters, for all that is not offered here.
    On a resume TensorBoard hides what earlier files hold of later steps.
    """

    on_by_default = True

    def __init__(
        self,
        *,
        run: RunDirectory,
        config: Mapping[str, Any] = {},
        resume: ResumedFrom | None = None,
    ) -> None:
        self._folder, self._config = run.tensorboard, config
        first = resume.step + 1 if resume else 0
        # the epoch's end, where validation is logged, lies at the restored step or behind it
        first_valid = resume.step if resume and resume.mid_epoch else first
        self.train_events = open_events(self._folder / "train", purge_step=first)
        self.valid_events = open_events(self._folder / "valid", purge_step=first_valid)

    def log_config(self, text: str) -> None:
        self.train_events.add_text("config", f"```yaml\n{text}\n```", 0)

    def log_model(self, model: "nn.Module", inputs: Any) -> None:
        if getattr(inputs, "ndim", 0) == 4 and inputs.shape[1] in (1, 3):
            self.train_events.add_images("inputs", scale_images(inputs[:MAX_IMAGES]), 0)
        self._add_graph(model, inputs)

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        _add_scalars(self.train_events, values, step)

    def log_epoch(self, row: Mapping[str, float | int]) -> None:
        """Add the columns of validation, without their `val_`; those of training have curves."""
        valid = {k.removeprefix("val_"): v for k, v in row.items() if k.startswith("val_")}
        _add_scalars(self.valid_events, valid, int(row["step"]))

    def flush(self) -> None:
        self.train_events.flush()
        self.valid_events.flush()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Show the run in the HPARAMS tab, with the results of `summary` as its outcome."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from torch.utils.tensorboard.summary import hparams

        # The parent of train/ and valid/ is where the tab looks for a run that has both. It is
        # told no list of columns: it would take that of one run for all of them.
        with open_events(self._folder, purge_step=0) as events:
            events.file_writer.add_summary(hparams_pb(flatten(self._config), trial_id=""), 0)
            events.file_writer.add_summary(hparams({}, {})[2], 0)  # the session has ended
            for name, value in flatten(summary).items():
                if isinstance(value, float) and name.rpartition(".")[2] not in NOT_RESULTS:
                    events.add_scalar(f"summary/{name}", value, 0)

    def close(self) -> None:
        self.train_events.close()
        self.valid_events.close()

    def _add_graph(self, model: "nn.Module", inputs: Any) -> None:
        """Show the graph of `model` as traced, or log why it cannot be."""
        import torch

        modes = {module: module.training for module in model.modules()}
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        generators = rng_state(device)
        try:
            with (
                torch.no_grad(),
                warnings.catch_warnings(action="ignore"),
                contextlib.redirect_stdout(io.StringIO()),  # torch prints what it raises
            ):
                self.train_events.add_graph(model, inputs, use_strict_trace=False)
        except Exception as error:  # tracing runs the user's forward: anything can come out
            reason = str(error).strip().partition("\n")[0]
            log.warning("TensorBoard shows no graph of this model: %s", reason)
        finally:
            set_rng_state(generators, device)
            for module, training in modes.items():
                module.training = training


def _add_scalars(events: Any, values: Mapping[str, float], step: int) -> None:
    """Write a point for each name in one record, several times as fast as one by one."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    events.file_writer.add_summary(Summary(value=points), step)
    events.flush()


def scale_images(images: "Tensor") -> "Tensor":
    """Return images (B, C, H, W) on the CPU, each over its own range within 0..1."""
    images = images.detach().float().cpu().nan_to_num(0, 0, 0)
    images -= images.amin((1, 2, 3), keepdim=True)
    return images / images.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)


def flatten(node: Any, prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return the values of a nested config by dotted path; None is left out.

    >>> flatten({"optimizer": {"type": "Adam", "args": {"betas": [0.9, 0.99]}}})
    {'optimizer.type': 'Adam', 'optimizer.args.betas': '[0.9, 0.99]'}
    """
    if node is None:
        return {}
    if isinstance(node, list) and any(isinstance(item, Mapping | list) for item in node):
        node = dict(enumerate(node))
    if isinstance(node, Mapping):
        prefix = prefix and f"{prefix}."
        return {k: v for key in node for k, v in flatten(node[key], f"{prefix}{key}").items()}
    is_number = isinstance(node, bool | int) or (isinstance(node, float) and math.isfinite(node))
    return {prefix: node if is_number else str(node)}
