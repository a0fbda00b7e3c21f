"""Devices, generators, and nests of tensors."""

import random
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from base.checkpoint.checkpoints import read_checkpoint, write_checkpoint
from base.errors import DataError, UsageError
from base.runtime import device as device_module
from base.runtime.device import (
    available_devices,
    count_samples,
    free_memory,
    rng_state,
    seed_everything,
    select_device,
    set_deterministic,
    set_rng_state,
    tensors_of,
    to_device,
)

CPU = torch.device("cpu")
Pair = namedtuple("Pair", "x y")


def machine(monkeypatch, *devices: str) -> None:
    monkeypatch.setattr(device_module, "available_devices", lambda: [*devices, "cpu"])
    num_gpus = sum(name.startswith("cuda") for name in devices)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)


def test_a_cpu_is_always_there():
    assert available_devices()[-1] == "cpu"
    assert select_device("cpu") == CPU


@pytest.mark.parametrize(
    ("devices", "name", "rank", "expected"),
    [
        (["cuda:0", "cuda:1"], "auto", 0, "cuda:0"),
        (["cuda:0", "cuda:1"], "auto", 1, "cuda:1"),
        (["cuda:0", "cuda:1"], "cuda", 3, "cuda:1"),
        (["cuda:0", "cuda:1"], "cuda:1", 0, "cuda:1"),
        (["cuda:0"], "cpu", 0, "cpu"),
        (["mps"], "auto", 0, "mps"),
        ([], "auto", 2, "cpu"),
    ],
)
def test_auto_takes_the_best_device_and_each_rank_its_own(
    monkeypatch, devices, name, rank, expected
):
    machine(monkeypatch, *devices)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert select_device(name) == torch.device(expected)


@pytest.mark.parametrize("name", ["cuda", "cuda:2", "gpu", "mps"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(monkeypatch, name):
    machine(monkeypatch, *(["cuda:0"] if name == "cuda:2" else []))
    with pytest.raises(UsageError, match=f"no device '{name}' here, expected auto or one of .*cpu"):
        select_device(name)


def test_the_cpu_tells_its_free_memory_and_a_container_its_limit(monkeypatch):
    assert 2**20 < free_memory(CPU) < 2**50
    limit = {"/proc/meminfo": "MemFree: 1 kB\nMemAvailable:   4096 kB\n"}

    def read_text(path: Path) -> str:
        if str(path) not in limit:
            raise FileNotFoundError
        return limit[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert free_memory(CPU) == 4096 * 1024
    limit["/sys/fs/cgroup/memory.max"] = "max\n"
    assert free_memory(CPU) == 4096 * 1024
    limit["/sys/fs/cgroup/memory.max"] = "1000000\n"
    limit["/sys/fs/cgroup/memory.current"] = "400000\n"
    assert free_memory(CPU) == 600_000
    limit.clear()
    assert free_memory(CPU) == 8 * 2**30


def draw() -> list[float]:
    return [
        random.random(), random.gauss(), float(np.random.rand()), float(np.random.randn()),
        float(torch.rand(())), float(torch.randn(())),
    ]  # fmt: skip


def test_a_seed_fixes_every_generator():
    seed_everything(2**40)
    first = draw()
    seed_everything(2**40)
    assert draw() == first
    seed_everything(2**40 + 1)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_generators_come_back_from_a_checkpoint_with_their_cached_gaussians(tmp_path):
    seed_everything(1)
    draw()  # each gauss makes two numbers and keeps one
    write_checkpoint(tmp_path / "x.pth", {"rng": rng_state(CPU)})
    expected = draw() + draw()
    seed_everything(2)
    set_rng_state(read_checkpoint(tmp_path / "x.pth")["rng"], CPU)
    assert draw() + draw() == expected


def test_the_state_of_another_kind_of_device_is_passed_over():
    state = rng_state(CPU) | {"cuda": torch.zeros(16, dtype=torch.uint8)}
    set_rng_state(state, CPU)
    assert torch.equal(rng_state(CPU)["torch"], state["torch"])


def test_deterministic_mode_is_asked_for_and_taken_back(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        set_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
    finally:
        set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


def test_a_nest_of_tensors_moves_as_it_is():
    images = torch.ones(2, 3, 4, 4)
    nest = {"x": [images, Pair(torch.ones(2), "name")], "y": (1, None)}
    moved = to_device(nest, torch.device("meta"), channels_last=True)
    assert moved["x"][0].device.type == moved["x"][1].x.device.type == "meta"
    assert moved["x"][0].is_contiguous(memory_format=torch.channels_last)
    assert isinstance(moved["x"][1], Pair)
    assert (moved["x"][1].y, moved["y"]) == ("name", (1, None))


def test_samples_are_counted_by_the_first_tensor_of_a_nest():
    assert count_samples([torch.ones(3, 2), torch.ones(5)]) == 3
    assert count_samples({"names": ["a"], "x": (None, torch.ones(4))}) == 4
    assert list(tensors_of(["a", {}])) == []


@pytest.mark.parametrize(
    ("batch", "found"), [(["a"], "list"), (torch.ones(()), "Tensor"), (None, "NoneType")]
)
def test_a_batch_that_cannot_be_counted_is_a_data_error(batch, found):
    with pytest.raises(DataError, match=f"a tensor with a first dimension, found a {found}"):
        count_samples(batch)
