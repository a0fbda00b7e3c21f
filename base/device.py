"""Devices, precision, and the state of every random number generator."""

import os
import random
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base import distributed
from base.errors import DataError, UsageError

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
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
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
    torch.backends.cudnn.benchmark = not deterministic


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the state of this process's generators as plain data and tensors."""
    version, words, gauss = random.getstate()
    name, keys, *position = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, keys.tolist(), *position],
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(*_number(device))
    return state


def set_rng_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put this process's generators into a state that `rng_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type], *_number(device))


def _number(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one of those only


def to_device(batch: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """Return a nest of tensors on `device`; images (B, C, H, W) in channels_last if asked."""
    if isinstance(batch, torch.Tensor):
        if channels_last and batch.ndim == 4:
            return batch.to(device, memory_format=torch.channels_last, non_blocking=True)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {k: to_device(v, device, channels_last=channels_last) for k, v in batch.items()}
    if isinstance(batch, (tuple, list)):
        parts = [to_device(part, device, channels_last=channels_last) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def count_samples(batch: Any) -> int:
    """Return the number of samples of a batch: the first dimension of its first tensor.

    Raises:
        DataError: the batch holds no tensor with a first dimension.
    """
    tensor = first_tensor(batch)
    if tensor is None or tensor.ndim == 0:
        found = "a tensor without" if tensor is not None else type(batch).__name__
        raise DataError(f"a batch needs a tensor with a first dimension, found {found}")
    return len(tensor)


def first_tensor(batch: Any) -> torch.Tensor | None:
    """Return the first tensor of a nest, depth first, or None."""
    if isinstance(batch, torch.Tensor):
        return batch
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, (Mapping, tuple, list)):
        return next((t for t in map(first_tensor, parts) if t is not None), None)
    return None
