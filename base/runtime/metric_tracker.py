"""Averages of losses and metrics over an epoch, weighted by samples, exact across ranks."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from base.errors import UsageError
from base.runtime import distributed
from base.runtime.device import to_device

Metric = Callable[[Any, Any], Any]
JOINED_BYTES = 2**18  # of outputs and targets that a metric per sample gets at once


def per_sample(metric: Metric) -> Metric:
    """Mark a metric that returns a value for each sample, (B,), not their mean.

    It is given several small batches at once, since what it costs on one is mostly its calls.
    """
    metric.per_sample = True
    return metric


class MetricTracker:
    """Sums and counts by column, and metrics that keep a state of their own over all data.

    On the CPU the sums are Python floats; on an accelerator they are tensors that stay there, so
    that nothing waits for the device until `compute` or `compute_since_last_log` is called. A
    function's value is averaged with the batch's sample count as weight; for one that is
    `per_sample`, batches are joined. One with `compute`, a `torchmetrics.Metric`, sees every batch
    and is computed once, at the end of the epoch.

    Raises:
        UsageError: a metric has `compute` but is none of torchmetrics.
    """

    def __init__(self, metrics: Mapping[str, Metric], *, device: torch.device) -> None:
        self.functions, self.per_sample, self.objects = {}, {}, {}
        for column, metric in metrics.items():
            if getattr(getattr(metric, "func", metric), "per_sample", False):
                self.per_sample[column] = metric
            elif not hasattr(metric, "compute"):
                self.functions[column] = metric
            elif isinstance(metric, nn.Module):
                self.objects[column] = copy.deepcopy(metric).to(device)
            else:
                raise UsageError(f"{column} has compute(), but is no torchmetrics.Metric")
        self.device = device
        self.sum_dtype = torch.float32 if device.type == "mps" else torch.float64
        self.enabled = True  # while False, what is added or updated does not count
        self.reset()

    def reset(self) -> None:
        """Forget everything, for a new epoch."""
        self.joined: list[tuple[Tensor, Tensor]] = []  # batches that wait for a full measure
        self.sums: dict[str, float | Tensor] = {}
        self.counts: dict[str, int] = {}
        self.marked: dict[str, tuple[float | Tensor, int]] = {}
        for metric in self.objects.values():
            metric.reset()

    def add(self, column: str, value: float | Tensor, count: int) -> float | Tensor:
        """Count a batch's mean value, a number or a tensor of one element, for `count` samples.

        Return it as it was read: a number, or on an accelerator a tensor that was not waited for.

        Raises:
            UsageError: the value is not a scalar; the message names the column.
        """
        if isinstance(value, Tensor) and value.device.type != "cpu" and value.numel() == 1:
            value = value.detach().reshape(())
        else:
            value = _scalar(column, value)
        if self.enabled:
            self._count(column, value, count, weight=count)
        return value

    def _count(self, column: str, value: float | Tensor, count: int, *, weight: int) -> None:
        total = self.sums.get(column, 0.0)
        if isinstance(value, Tensor):  # one kernel, once the sum is on the device
            total = torch.as_tensor(total, dtype=self.sum_dtype, device=value.device)
            self.sums[column] = total.add_(value, alpha=weight)
        else:
            self.sums[column] = total + value * weight
        self.counts[column] = self.counts.get(column, 0) + count

    def update(self, output: Any, target: Any, count: int) -> None:
        """Give a batch's output and target to every metric."""
        if not self.enabled:
            return
        if self.functions or self.objects:
            with torch.no_grad():
                for column, function in self.functions.items():
                    self.add(column, function(output, target), count)
                for metric in self.objects.values():
                    metric.update(output, target)
        if self.per_sample:
            self._join(output, target, count)

    def _join(self, output: Any, target: Any, count: int) -> None:
        """Keep a small batch for the metrics per sample, and measure when there are enough."""
        if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
            self._measure(output, target, count)
            return
        # copies: what they are cut from is not kept, and may change until they are measured
        self.joined.append((output.detach().clone(), target.detach().clone()))
        if len(self.joined) * (output.nbytes + target.nbytes) >= JOINED_BYTES:
            self._measure_joined()

    def _measure_joined(self) -> None:
        batches, self.joined = self.joined, []
        if len({(output.shape[1:], target.shape[1:]) for output, target in batches}) == 1:
            batches = [map(torch.cat, zip(*batches, strict=True))]
        for output, target in batches:
            self._measure(output, target, len(target))

    @torch.no_grad()
    def _measure(self, output: Any, target: Any, count: int) -> None:
        for column, function in self.per_sample.items():
            values = function(output, target)
            if not isinstance(values, Tensor) or values.shape != (count,):
                raise UsageError(
                    f"{column} gives {_found(values)}, expected one value per sample: ({count},)"
                )
            total = values.sum(dtype=self.sum_dtype)
            total = total.item() if total.device.type == "cpu" else total
            self._count(column, total, count, weight=1)

    def compute(self) -> dict[str, float]:
        """Return every column's value since `reset`, over all ranks."""
        self._measure_joined()
        values = _averages(self._on_host(self.sums), self.counts)
        values = {column: values[column] for column in sorted(values, key="loss".__ne__)}
        for column, metric in self.objects.items():
            values[column] = _scalar(column, metric.compute())
        return values

    def compute_since_last_log(self) -> dict[str, float]:
        """Return the averaged columns since the last call, over all ranks."""
        self._measure_joined()
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
            "joined": [list(batch) for batch in self.joined],
            "sums": self._on_host(self.sums),
            "counts": dict(self.counts),
            "marked": {column: list(mark) for column, mark in self.marked.items()},
            "objects": {name: _metric_state(m) for name, m in self._stateful().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.joined = [tuple(to_device(batch, self.device)) for batch in state.get("joined", [])]
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
        self.marked = {column: tuple(mark) for column, mark in state["marked"].items()}
        for name, metric in self._stateful().items():
            for key, value in copy.deepcopy(state["objects"][name]).items():
                setattr(metric, key, to_device(value, self.device))

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
        return float(value.item() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{column} gives {_found(value)}, expected a scalar") from error


def _found(value: Any) -> str:
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    return f"a {type(value).__name__}{shape}"
