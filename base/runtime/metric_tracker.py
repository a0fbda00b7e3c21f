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
JOINED_BYTES = 2**18  # of outputs and targets that a metric per sample gets at once


def per_sample(metric: Metric) -> Metric:
    """Mark a metric that returns a value for each sample, (B,), not their mean.

    It is given several small batches at once, since what it costs on one is mostly its calls.
    """
    metric.per_sample = True
    return metric


class MetricTracker:
    """Averages by column, and torchmetrics that keep a state of their own.

    Sums are Python floats on the CPU and tensors on an accelerator, so that nothing waits for the
    device before `compute` or `compute_since_last_log`. A function's value is weighted by the
    number of samples, unless it is `per_sample`, for which small batches are joined. A
    `torchmetrics.Metric` sees every batch and is computed at the end of the epoch.
    """

    def __init__(self, metrics: Mapping[str, Metric], *, device: torch.device) -> None:
        self.functions, self.per_sample, self.objects = {}, {}, {}
        for column, metric in metrics.items():
            if getattr(getattr(metric, "func", metric), "per_sample", False):
                self.per_sample[column] = metric
            elif isinstance(metric, nn.Module) and hasattr(metric, "compute"):
                self.objects[column] = copy.deepcopy(metric).to(device)
            else:
                self.functions[column] = metric
        self.device = device
        self.sum_dtype = torch.float32 if device.type == "mps" else torch.float64
        self.enabled = True  # while False, what is added or updated does not count
        self.reset()

    def reset(self) -> None:
        """Forget everything, for a new epoch."""
        self.joined: list[tuple[Tensor, Tensor]] = []  # batches that wait for a full measure
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
            self.add(column, function(output, target), count)
        for metric in self.objects.values():
            metric.update(output, target)
        if not self.per_sample:
            return
        if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
            self._add_per_sample(output, target, count)
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
            self._add_per_sample(output, target, len(target))

    @torch.no_grad()
    def _add_per_sample(self, output: Any, target: Any, count: int) -> None:
        for column, function in self.per_sample.items():
            values = function(output, target)
            if not isinstance(values, Tensor) or values.shape != (count,):
                expected = f"expected one value per sample: ({count},)"
                raise UsageError(f"{column} gives {_found(values)}, {expected}")
            self.add(column, values.sum(dtype=self.sum_dtype), count, is_sum=True)

    def compute(self) -> dict[str, float]:
        """Return every column's value since `reset`, over all ranks."""
        self._measure_joined()
        values = _averages(self._sums_on_host())
        values = {column: values[column] for column in sorted(values, key="loss".__ne__)}
        for column, metric in self.objects.items():
            values[column] = _scalar(column, metric.compute())
        return values

    def compute_since_last_log(self) -> dict[str, float]:
        """Return the averaged columns since the last call, over all ranks."""
        self._measure_joined()
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
            "joined": [list(batch) for batch in self.joined],
            "sums": self._sums_on_host(),
            "logged": dict(self.logged),
            "objects": {name: _metric_state(m) for name, m in self._stateful().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.joined = [tuple(to_device(batch, self.device)) for batch in state["joined"]]
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
