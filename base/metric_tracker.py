"""Averages of losses and metrics over an epoch, weighted by samples, exact across ranks."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from base import distributed
from base.device import to_device
from base.errors import UsageError

Metric = Callable[[Any, Any], Any]


class MetricTracker:
    """Sums and counts by column, and metrics that keep a state of their own over all data.

    On the CPU the sums are Python floats; on an accelerator they are tensors that stay there, so
    that nothing waits for the device until `averages` or `interval` is asked. A function's value is
    averaged with the batch's sample count as weight. One with `compute`, a `torchmetrics.Metric`,
    sees every batch and is computed once, at the end of the epoch.

    Raises:
        UsageError: a metric has `compute` but is none of torchmetrics.
    """

    def __init__(self, metrics: Mapping[str, Metric], *, device: torch.device) -> None:
        self.functions = {n: m for n, m in metrics.items() if not hasattr(m, "compute")}
        self.objects = {}
        for column, metric in metrics.items():
            if column not in self.functions:
                if not isinstance(metric, nn.Module):
                    raise UsageError(f"{column} has compute(), but is no torchmetrics.Metric")
                self.objects[column] = copy.deepcopy(metric).to(device)
        self.device = device
        self.sum_dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums: dict[str, float | Tensor] = {}
        self.counts: dict[str, int] = {}
        self.marked: dict[str, tuple[float | Tensor, int]] = {}
        self.is_open = True  # while False, what is added or updated does not count

    def reset(self) -> None:
        """Forget everything, for a new epoch."""
        self.sums, self.counts, self.marked = {}, {}, {}
        for metric in self.objects.values():
            metric.reset()

    def add(self, column: str, value: float | Tensor, count: int) -> None:
        """Count a batch's mean value, a number or a tensor of one element, for `count` samples.

        Raises:
            UsageError: the value is not a scalar; the message names the column.
        """
        if not self.is_open:
            return
        if isinstance(value, Tensor) and value.device.type != "cpu" and value.numel() == 1:
            value = value.detach().reshape(()).to(self.sum_dtype)
        else:
            value = _scalar(column, value)
        self.sums[column] = self.sums.get(column, 0.0) + value * count
        self.counts[column] = self.counts.get(column, 0) + count

    def update(self, output: Any, target: Any, count: int) -> None:
        """Give a batch's output and target to every metric."""
        if not self.is_open:
            return
        with torch.no_grad():
            for column, function in self.functions.items():
                self.add(column, function(output, target), count)
            for metric in self.objects.values():
                metric.update(output, target)

    def averages(self) -> dict[str, float]:
        """Return every column's value since `reset`, over all ranks."""
        values = _averages(self._on_host(self.sums), self.counts)
        values = {column: values[column] for column in sorted(values, key="loss".__ne__)}
        for column, metric in self.objects.items():
            values[column] = _scalar(column, metric.compute())
        return values

    def interval(self) -> dict[str, float]:
        """Return the averaged columns since the last call, over all ranks."""
        sums = self._on_host(self.sums)
        before = {column: self.marked.get(column, (0.0, 0)) for column in sums}
        self.marked = {column: (sums[column], self.counts[column]) for column in sums}
        return _averages(
            {column: sums[column] - before[column][0] for column in sums},
            {column: self.counts[column] - before[column][1] for column in sums},
        )

    def _on_host(self, sums: Mapping[str, float | Tensor]) -> dict[str, float]:
        if self.device.type == "cpu" or not sums:
            return dict(sums)
        tensors = [
            torch.as_tensor(v, dtype=self.sum_dtype, device=self.device) for v in sums.values()
        ]
        return dict(zip(sums, torch.stack(tensors).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the partial sums and the state of every metric, also of those nested in others."""
        return {
            "sums": self._on_host(self.sums),
            "counts": dict(self.counts),
            "marked": {column: list(mark) for column, mark in self.marked.items()},
            "objects": {name: _metric_state(m) for name, m in self._stateful().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
        self.marked = {column: tuple(mark) for column, mark in state["marked"].items()}
        for name, metric in self._stateful().items():
            _load_metric_state(metric, state["objects"][name], self.device)

    def _stateful(self) -> dict[str, Any]:
        return {
            f"{column}/{name}": module
            for column, metric in self.objects.items()
            for name, module in metric.named_modules()
            if hasattr(module, "_defaults")
        }


def _metric_state(metric: Any) -> dict[str, Any]:
    """Return a metric's states, and the numbers and tensors that it keeps beside them."""
    kept = {
        name: value
        for name, value in vars(metric).items()
        if name in metric._defaults or type(value) in (int, float, Tensor)
    }
    return copy.deepcopy(kept)


def _load_metric_state(metric: Any, state: Mapping[str, Any], device: torch.device) -> None:
    for name, value in copy.deepcopy(state).items():
        setattr(metric, name, to_device(value, device))


def _averages(sums: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    totals: dict[str, list[float]] = {}
    for rank_sums, rank_counts in distributed.gather_objects((sums, counts)):
        for column, value in rank_sums.items():
            total = totals.setdefault(column, [0.0, 0.0])
            total[0] += value
            total[1] += rank_counts[column]
    return {column: value / count for column, (value, count) in totals.items() if count}


def _scalar(column: str, value: Any) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        found = f"a {type(value).__name__}{shape}"
        raise UsageError(f"{column} gives {found}, expected a scalar") from error
