"""Curves, config, graph and inputs of a run in TensorBoard."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

LOG = logging.getLogger("train")
MAX_IMAGES = 32


class TensorBoardWriter:
    """Two event folders, train/ and valid/, so that a tag's two curves share one chart.

    `train_events` and `valid_events` are torch SummaryWriters, for all that is not offered here.
    On a resume the events of earlier files from `purge_train` and `purge_valid` (steps) on are
    hidden.
    """

    def __init__(
        self, folder: Path, *, purge_train: int | None = None, purge_valid: int | None = None
    ) -> None:
        from logger.event_file import EventWriter

        self._folder = Path(folder)
        self.train_events = EventWriter(self._folder / "train", purge_step=purge_train)
        self.valid_events = EventWriter(self._folder / "valid", purge_step=purge_valid)

    def train(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to the training curve of each name."""
        _add_scalars(self.train_events, values, step)

    def valid(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to the validation curve of each name, given without its `val_`."""
        _add_scalars(self.valid_events, values, step)

    def text(self, tag: str, text: str) -> None:
        """Show `text` (Markdown) in the TEXT tab."""
        self.train_events.add_text(tag, text, 0)

    def graph(self, model: "nn.Module", inputs: Any) -> None:
        """Show the graph of the plain `model` (not wrapped or compiled) as traced with `inputs`.

        It leaves the model's modes and the random state as they were. A model that cannot be
        traced costs one line in the log.
        """
        import torch

        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        devices = [device] if device.type in ("cuda", "xpu") else []
        device_type = device.type if devices else "cuda"
        try:
            with (
                _restored_modes(model),
                torch.no_grad(),
                torch.random.fork_rng(devices=devices, device_type=device_type),
                warnings.catch_warnings(action="ignore"),
                contextlib.redirect_stdout(io.StringIO()),  # torch prints what it raises
            ):
                self.train_events.add_graph(model, inputs, use_strict_trace=False)
        except Exception as error:  # tracing runs the user's forward: anything can come out
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            LOG.warning("TensorBoard shows no graph of this model: %s", reason)

    def images(self, tag: str, inputs: Any) -> None:
        """Show up to 32 of `inputs` (B, C, H, W), C 1 or 3, each scaled to its own range.

        Anything of another shape is passed over.
        """
        if getattr(inputs, "ndim", 0) != 4 or inputs.shape[1] not in (1, 3):
            return
        from logger.plots.plots import scaled_for_viewing

        images = scaled_for_viewing(inputs[:MAX_IMAGES])  # (B, H, W, C)
        self.train_events.add_images(tag, images, 0, dataformats="NHWC")

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Show this run in the HPARAMS tab: the values of `config`, `metrics` as the outcome."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from torch.utils.tensorboard.summary import hparams

        from logger.event_file import EventWriter

        # The parent of train/ and valid/ is where the tab looks for a run that has both. It is
        # told no list of columns: it would take that of one run for all of them.
        with EventWriter(self._folder, purge_step=0) as events:
            events.file_writer.add_summary(hparams_pb(flatten(config), trial_id=""), 0)
            events.file_writer.add_summary(hparams({}, {})[2], 0)  # the session has ended
            for name, value in metrics.items():
                events.add_scalar(name, value, 0)

    def flush(self) -> None:
        self.train_events.flush()
        self.valid_events.flush()

    def close(self) -> None:
        self.train_events.close()
        self.valid_events.close()


def _add_scalars(events: Any, values: Mapping[str, float], step: int) -> None:
    """Write a point for each name in one record, several times as fast as one by one."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    events.file_writer.add_summary(Summary(value=points), step)
    events.flush()


@contextlib.contextmanager
def _restored_modes(model: "nn.Module") -> Iterator[None]:
    """Give every module its own mode back: a frozen BatchNorm stays in eval."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def flatten(node: Any, prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return the values of a nested config by dotted path; None is left out.

    >>> flatten({"optimizer": {"type": "Adam", "args": {"betas": [0.9, 0.99]}}})
    {'optimizer.type': 'Adam', 'optimizer.args.betas': '[0.9, 0.99]'}
    """
    if isinstance(node, Mapping):
        items = list(node.items())
    elif isinstance(node, list) and any(isinstance(item, Mapping | list) for item in node):
        items = list(enumerate(node))
    elif node is None:
        return {}
    else:
        is_plain = isinstance(node, bool | int | str) or (
            isinstance(node, float) and math.isfinite(node)
        )
        return {prefix: node if is_plain else str(node)}
    flat = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
