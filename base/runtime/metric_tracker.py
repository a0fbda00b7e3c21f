"""Averages of losses and metrics over an epoch, weighted by samples, exact across ranks."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from base.errors import UsageError
from base.runtime import distributed
from base.runtime.device import to_device

Metric = Callable[[Any, Any], Any]
Sum = tuple[float | Tensor, int]  # of values times samples, and the number of samples


def per_sample(metric: Metric) -> Metric:
    """Mark a metric that returns a value for each sample, (B,), not their mean."""
    metric.per_sample = True
    return metric


class MetricTracker:
    """Averages by column, and torchmetrics that keep a state of their own.

    Sums are Python floats on the CPU and tensors on an accelerator, so that nothing waits for the
    device before `compute` or `compute_since_last_log`. A function's value is weighted by the
    number of samples, unless it is `per_sample`. A `torchmetrics.Metric` sees every batch and is
    computed at the end of the epoch.
    """

    def __init__(self, metrics: Mapping[str, Metric], *, device: torch.device) -> None:
        self.functions, self.objects = {}, {}
        for column, metric in metrics.items():
            if isinstance(metric, nn.Module) and hasattr(metric, "compute"):
                self.objects[column] = copy.deepcopy(metric).to(device)
            else:
                self.functions[column] = metric
        self.device = device
        self.sum_dtype = torch.float32 if device.type == "mps" else torch.float64
        self.enabled = True  # while False, what is added or updated does not count
        self.reset()

    def reset(self) -> None:
        """Forget everything, for a new epoch."""
        self.sums: dict[str, Sum] = {}
        self.logged: dict[str, Sum] = {}  # the sums at the last log
        for metric in self.objects.values():
            metric.reset()

    def add(
        self, column: str, value: float | Tensor, count: int, *, is_sum: bool = False
    ) -> float | Tensor:
        """Count a batch's mean value, a number or a tensor of one element, for `count` samples.

        Return it as it was read: a number, or on an accelerator a tensor that was not waited for.
        With `is_sum` it is the sum over the samples.

        Raises:
            UsageError: the value is not a scalar; the message names the column.
        """
        if isinstance(value, Tensor) and value.device.type != "cpu" and value.numel() == 1:
            value = value.detach().reshape(())
        else:
            value = _scalar(column, value)
        if self.enabled:
            weight = 1 if is_sum else count
            total, num_before = self.sums.get(column, (0.0, 0))
            if isinstance(value, Tensor):  # one kernel, once the sum is on the device
                total = torch.as_tensor(total, dtype=self.sum_dtype, device=value.device)
                total = total.add_(value, alpha=weight)
            else:
                total += value * weight
            self.sums[column] = total, num_before + count
        return value

    @torch.no_grad()
    def update(self, output: Any, target: Any, count: int) -> None:
        """Give a batch's output and target to every metric."""
        if not self.enabled:
            return
        for column, function in self.functions.items():
            value = function(output, target)
            is_sum = getattr(getattr(function, "func", function), "per_sample", False)
            if is_sum:
                if not isinstance(value, Tensor) or value.shape != (count,):
                    expected = f"expected one value per sample: ({count},)"
                    raise UsageError(f"{column} gives {_found(value)}, {expected}")
                value = value.sum(dtype=self.sum_dtype)
            self.add(column, value, count, is_sum=is_sum)
        for metric in self.objects.values():
            metric.update(output, target)

    def compute(self) -> dict[str, float]:
        """Return every column's value since `reset`, over all ranks."""
        values = _averages(self._sums_on_host())
        values = {column: values[column] for column in sorted(values, key="loss".__ne__)}
        for column, metric in self.objects.items():
            values[column] = _scalar(column, metric.compute())
        return values

    def compute_since_last_log(self) -> dict[str, float]:
        """Return the averaged columns since the last call, over all ranks."""
        before, self.logged = self.logged, self._sums_on_host()
        recent = dict(self.logged)
        for column, (total, count) in before.items():
            recent[column] = recent[column][0] - total, recent[column][1] - count
        return _averages(recent)

    def _sums_on_host(self) -> dict[str, tuple[float, int]]:
        """Return the sums as numbers; the device is waited for once, not for each column."""
        totals = {column: total for column, (total, _) in self.sums.items()}
        on_device = [column for column, total in totals.items() if isinstance(total, Tensor)]
        if on_device:
            values = torch.stack([totals[column] for column in on_device]).tolist()
            totals |= zip(on_device, values, strict=True)
        return {column: (totals[column], count) for column, (_, count) in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the partial sums and the state of every metric, also of those nested in others."""
        return {
            "sums": self._sums_on_host(),
            "logged": dict(self.logged),
            "objects": {name: _metric_state(m) for name, m in self._stateful().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums, self.logged = dict(state["sums"]), dict(state["logged"])
        for name, metric in self._stateful().items():
            for key, value in copy.deepcopy(state["objects"][name]).items():
                setattr(metric, key, to_device(value, self.device))

    def _stateful(self) -> dict[str, Any]:
        """Return all torchmetrics by name; `state_dict` of torch's misses some of their states."""
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


def _averages(sums: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """Return the averages of the sums of all ranks, without columns of no samples."""
    totals, counts = Counter(), Counter()
    for sums_of_rank in distributed.gather_objects(sums):
        for column, (total, count) in sums_of_rank.items():
            totals[column] += total
            counts[column] += count
    return {column: totals[column] / count for column, count in counts.items() if count}


def _scalar(column: str, value: Any) -> float:
    try:
        return float(value.item() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{column} gives {_found(value)}, expected a scalar") from error


def _found(value: Any) -> str:
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    return f"a {type(value).__name__}{shape}"
