"""Devices, precision, and the state of every random number generator."""

import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base.errors import DataError, UsageError
from base.runtime import distributed

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def available_devices() -> list[str]:
    """Return the devices of this machine, the best first, "cpu" always last."""
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if torch.xpu.is_available():
        devices.append("xpu")
    return [*devices, "cpu"]


def select_device(name: str) -> torch.device:
    """Return the device of a config's name; "auto" takes the best, each rank one of its own.

    Raises:
        UsageError: the machine has no such device; the message lists those it has.
    """
    devices = available_devices()
    if name in ("auto", "cuda") and devices[0].startswith("cuda"):
        name = f"cuda:{distributed.local_rank() % torch.cuda.device_count()}"
    elif name == "auto":
        name = devices[0]
    if name not in devices:
        raise UsageError(f"no device {name!r} here, expected auto or one of {', '.join(devices)}")
    return torch.device(name)


def free_memory(device: torch.device) -> int:
    """Return the bytes that a device, or for the CPU this machine or container, can still give."""
    if device.type in ("cuda", "xpu"):
        return torch.get_device_module(device).mem_get_info(device)[0]
    limits = [8 * 2**30]  # a guess, where the system does not tell
    with suppress(OSError):  # Linux only
        text = Path("/proc/meminfo").read_text()
        limits = [int(n) * 1024 for n in re.findall(r"MemAvailable:\s+(\d+) kB", text)] or limits
    with suppress(OSError, ValueError):  # "max" where a container has no limit
        limit, used = (
            int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current")
        )
        limits.append(limit - used)
    return min(limits)


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def set_deterministic(deterministic: bool) -> None:
    """Ask torch for deterministic algorithms, with a warning where it has none."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by cuBLAS
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # of no use but to find bugs
    torch.backends.cudnn.benchmark = not deterministic


def versions(device: torch.device) -> dict[str, Any]:
    """Return what else decides the bits of a result: torch, threads, processes, the device."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "world_size": distributed.world_size(),
        "device": device.type,
    }


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the state of this process's generators as plain data and tensors."""
    name, keys, *position = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *position],
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(*_number(device))
    return state


def set_rng_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put this process's generators into a state that `rng_state` returned."""
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type], *_number(device))


def _number(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one of those only


def to_device(batch: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """Return a nest of tensors on `device`; images (B, C, H, W) in channels_last if asked."""

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if channels_last and tensor.ndim == 4:
            return tensor.to(device, memory_format=torch.channels_last, non_blocking=True)
        return tensor.to(device, non_blocking=True)

    return map_tensors(move, batch)


def map_tensors(function: Callable[[torch.Tensor], Any], nest: Any) -> Any:
    """Return a nest of tensors with each replaced by `function` of it; what else it holds stays."""
    if isinstance(nest, torch.Tensor):
        return function(nest)
    if isinstance(nest, (tuple, list)):
        parts = [map_tensors(function, part) for part in nest]
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    if isinstance(nest, Mapping):
        return {key: map_tensors(function, value) for key, value in nest.items()}
    return nest


def count_samples(batch: Any) -> int:
    """Return the number of samples of a batch: the first dimension of its first tensor.

    Raises:
        DataError: the batch holds no tensor with a first dimension.
    """
    tensor = next(tensors_of(batch), None)
    if tensor is None or not tensor.shape:
        found = type(batch).__name__
        raise DataError(f"a batch needs a tensor with a first dimension, found a {found}")
    return tensor.shape[0]


def tensors_of(nest: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a batch, or of what a module gives, depth first."""
    if isinstance(nest, torch.Tensor):
        yield nest
    elif isinstance(nest, (tuple, list, Mapping)):
        for part in nest.values() if isinstance(nest, Mapping) else nest:
            yield from tensors_of(part)
