"""Checkpoints: whole or absent, plain data, never loaded damaged, ordered by place not clock."""

import collections
import errno
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from base.checkpoint.checkpoints import (
    BEST,
    Checkpoints,
    checkpoint_key,
    checkpoint_name,
    config_of,
    read_checkpoint,
    write_checkpoint,
)
from base.errors import CheckpointError, WriteError

STATE = {
    "model": collections.OrderedDict(weight=torch.arange(6.0).view(2, 3), bias=torch.ones(3)),
    "epoch": 3,
    "config": '{"name": "x"}',
    "monitor": {"best": float("inf")},
    "rng": [1, 2.5, None, (3, b"4")],
}


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def content_of(state, folder: Path) -> bytes:
    write_checkpoint(folder / "whole.pth", state)
    return (folder / "whole.pth").read_bytes()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- one file -------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was(tmp_path):
    path = Checkpoints(tmp_path).save(STATE, epoch=3)
    assert same(read_checkpoint(path), STATE)
    assert same(torch.load(path, weights_only=True), STATE)


@pytest.mark.parametrize(
    "value",
    [
        *(1, 2**80, 0.5, True, None, "x", b"x", 1j, (1,), [1], {1}, {}, {1: {"a": []}}),
        *(torch.ones(1), torch.nn.Parameter(torch.ones(1)), torch.float32, torch.device("cpu")),
        *(torch.Size([1]), collections.Counter("ab"), collections.OrderedDict(a=1)),
    ],
)
def test_what_counts_as_plain_data_loads_again_without_an_allow_list(tmp_path, value):
    write_checkpoint(tmp_path / "x.pth", {"value": value})
    loaded = torch.load(tmp_path / "x.pth", weights_only=True)["value"]
    assert type(loaded) is type(value)
    assert torch.equal(loaded, value) if isinstance(value, torch.Tensor) else loaded == value


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"callbacks": [{"best": np.float64(1)}]}, "callbacks.0.best, a numpy.float64"),
        ({"a": {"b": (1, np.zeros(1))}}, "a.b.1, a numpy.ndarray"),
        ({"a": {Path("x"): 1}}, "a.x, a pathlib.PosixPath"),
        ({"a": lambda: 1, "b": {1, random.Random()}}, "a, a builtins.function, b.*random.Random"),
    ],
)
def test_what_is_no_plain_data_is_named_and_nothing_is_written(tmp_path, state, message):
    for save in (lambda c: c.save(state, epoch=1), lambda c: c.save_best(state)):
        with pytest.raises(CheckpointError, match=f"^cannot save {message}.*: the state dicts of"):
            save(Checkpoints(tmp_path))
    assert names(tmp_path) == set()


def test_every_bit_flipped_and_every_byte_changed_is_refused_or_harmless(tmp_path):
    content, path = content_of(STATE, tmp_path), tmp_path / "x.pth"
    choose = random.Random(1)
    damages = [(choose.randrange(len(content)), choose.randrange(1, 256)) for _ in range(300)]
    damages += [(choose.randrange(len(content)), 1 << choose.randrange(8)) for _ in range(300)]
    records = content.index(b"PK\x01\x02")  # where the zip's directory begins
    damages += [(place, 0x10) for place in range(records, len(content))]  # also "is a folder"
    refused = 0
    for place, change in damages:
        damaged = bytearray(content)
        damaged[place] ^= change
        path.write_bytes(damaged)
        try:
            loaded = read_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:
            assert same(loaded, STATE), (place, change)
    assert refused > len(damages) / 3  # the rest is padding and dates


def test_a_damaged_tensor_is_refused_though_torch_would_load_it(tmp_path):
    content = content_of(STATE, tmp_path)
    place = content.index(torch.arange(6.0).numpy().tobytes())
    path = tmp_path / "x.pth"
    path.write_bytes(content[: place + 9] + b"\x01" + content[place + 10 :])
    assert not same(torch.load(path, weights_only=True), STATE)
    with pytest.raises(CheckpointError, match=r"damaged .*checksum of .*data/0"):
        read_checkpoint(path)


def test_every_truncation_is_refused(tmp_path):
    content, path = content_of(STATE, tmp_path), tmp_path / "x.pth"
    for length in range(0, len(content), 23):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
            read_checkpoint(path)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"model": Evil()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="refused, it holds more than tensors and plain data"):
        read_checkpoint(tmp_path / "x.pth")
    assert names(tmp_path) == {"x.pth"}


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: no such checkpoint"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        read_checkpoint(tmp_path)
    np.savez(tmp_path / "array.npz", np.ones(3))
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        read_checkpoint(tmp_path / "array.npz")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list, expected a state dict"):
        read_checkpoint(tmp_path / "list.pth")


def test_a_save_that_fails_leaves_the_old_checkpoints(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    old = checkpoints.save(STATE, epoch=1, best=True)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteError, match="No space left on device"):
        checkpoints.save({"epoch": 2}, epoch=2, best=True)
    assert names(tmp_path) == {old.name, BEST}
    assert same(read_checkpoint(old), STATE)
    assert same(read_checkpoint(tmp_path / BEST), STATE)


# --- many files -----------------------------------------------------------------------------------


def test_the_newest_are_kept_and_the_best_beside_them(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    checkpoints.save({"epoch": 1}, epoch=1, best=True)
    checkpoints.save({"epoch": 1}, epoch=2, step=150)
    checkpoints.save({"epoch": 2}, epoch=2)
    checkpoints.save({"epoch": 3}, epoch=3)
    assert names(tmp_path) == {"checkpoint-epoch2.pth", "checkpoint-epoch3.pth", BEST}
    assert read_checkpoint(tmp_path / BEST) == {"epoch": 1}
    checkpoints.save_best({"epoch": 4})
    assert read_checkpoint(tmp_path / BEST) == {"epoch": 4}


def test_the_best_is_written_before_the_epoch_that_says_it_is(tmp_path, monkeypatch):
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if target.name != BEST:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Checkpoints(tmp_path).save({"epoch": 1}, epoch=1, best=True)
    assert names(tmp_path) == {BEST}
    assert read_checkpoint(tmp_path / BEST) == {"epoch": 1}


def test_the_best_is_a_second_name_that_later_saves_leave_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    first = checkpoints.save(STATE, epoch=1, best=True)
    assert os.path.samefile(first, tmp_path / BEST)
    checkpoints.save({"epoch": 1}, epoch=1)
    assert same(read_checkpoint(tmp_path / BEST), STATE)
    checkpoints.save({"epoch": 2}, epoch=2)
    assert same(read_checkpoint(tmp_path / BEST), STATE)


def test_where_there_are_no_hard_links_the_best_is_written_again(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", fail)
    path = Checkpoints(tmp_path).save(STATE, epoch=1, best=True)
    assert not os.path.samefile(path, tmp_path / BEST)
    assert same(read_checkpoint(tmp_path / BEST), STATE)


def test_a_link_that_a_killed_process_left_is_not_written_into(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(STATE, epoch=1, best=True)
    os.link(path, tmp_path / f".{checkpoint_name(2)}.{os.getpid()}.tmp")
    checkpoints.save({"epoch": 2}, epoch=2)
    assert same(read_checkpoint(tmp_path / BEST), STATE)
    assert same(read_checkpoint(path), STATE)


def test_what_reads_back_differently_is_not_put_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda number: os.pwrite(number, b"N", 300))
    with pytest.raises(WriteError, match="what was written reads back differently: "):
        Checkpoints(tmp_path).save(STATE, epoch=1)
    assert names(tmp_path) == set()


def test_order_is_by_place_in_training_and_not_by_clock_or_letters(tmp_path):
    expected = ["epoch10", "epoch10-step1000", "epoch10-step999", "epoch9", "epoch9-step900"]
    for age, name in enumerate([*expected[2:], *expected[:2]]):
        path = tmp_path / f"checkpoint-{name}.pth"
        path.touch()
        os.utime(path, (age, age))
    for other in (BEST, "checkpoint-epoch11.pth.tmp", "checkpoint-best.pth", "notes.txt"):
        (tmp_path / other).touch()
    found = [path.name for path in Checkpoints(tmp_path).newest_first()]
    assert found == [f"checkpoint-{name}.pth" for name in expected]


def test_names_and_places_belong_together():
    assert checkpoint_name(7) == "checkpoint-epoch7.pth"
    assert checkpoint_name(7, 0) == "checkpoint-epoch7-step0.pth"
    assert checkpoint_key(checkpoint_name(7, 30)) == (7, 30)
    assert checkpoint_key(checkpoint_name(7)) == (7, float("inf"))
    assert checkpoint_key(BEST) is None


def test_the_newest_valid_is_loaded_with_one_warning(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, keep_last=9)
    for epoch in (1, 2, 3):
        checkpoints.save({"epoch": epoch}, epoch=epoch)
    assert checkpoints.load_newest() == (tmp_path / "checkpoint-epoch3.pth", {"epoch": 3})
    assert not caplog.records
    for epoch in (2, 3):
        path = tmp_path / checkpoint_name(epoch)
        path.write_bytes(path.read_bytes()[:-30])
    with caplog.at_level(logging.WARNING, "train"):
        assert checkpoints.load_newest() == (tmp_path / "checkpoint-epoch1.pth", {"epoch": 1})
    (record,) = caplog.records
    assert "checkpoint-epoch3.pth: damaged" in record.message
    assert "checkpoint-epoch2.pth: damaged" in record.message
    assert record.message.endswith("continuing from checkpoint-epoch1.pth")


def test_where_none_is_valid_all_are_named_and_left(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load_newest() is None
    for epoch in (1, 2):
        (tmp_path / checkpoint_name(epoch)).write_bytes(b"damaged")
    with pytest.raises(
        CheckpointError, match=r"(?s)^no valid checkpoint:.*epoch2\.pth.*epoch1\.pth"
    ):
        checkpoints.load_newest()
    assert len(names(tmp_path)) == 2


def test_what_a_killed_process_left_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(STATE, epoch=1)
    (tmp_path / f".{BEST}.123.tmp").touch()
    (tmp_path / f".{path.name}.9.tmp").touch()
    checkpoints.clean()
    assert names(tmp_path) == {path.name}


# --- what a state holds ---------------------------------------------------------------------------


@pytest.mark.parametrize("state", [{}, {"config": object()}, {"config": "{"}])
def test_a_state_without_a_config_is_none_of_this_project(state):
    assert config_of(STATE) == {"name": "x"}
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        config_of(state)
