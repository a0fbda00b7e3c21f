"""A checkpoint is never lost: killed while saving, damaged on the disk, no room to write."""

import builtins
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from base.checkpoint.checkpoints import BEST, Checkpoints, read_checkpoint
from base.errors import CheckpointError, WriteError

pytestmark = pytest.mark.faults

NUM_KILLS = 100
NUM_TRUNCATIONS, NUM_FLIPS, NUM_ZEROED = 200, 500, 200
PAGE = 4096


def make_state(number: int, size: int = 500) -> dict:
    return {"model": {"weight": torch.full((size,), float(number))}, "epoch": number}


def is_whole(state: dict) -> bool:
    return bool((state["model"]["weight"] == state["epoch"]).all())


def save_for_ever(folder: Path, first: int, report: int) -> None:
    """Save states whose tensors hold their number; write each number once it is saved."""
    checkpoints = Checkpoints(folder, keep_last=2)
    for number in itertools.count(first):
        checkpoints.save(make_state(number, 20_000), epoch=number, best=number % 3 == 0)
        os.write(report, f"{number}\n".encode())


@pytest.mark.parametrize("temp_folder", ["same", "other"])
def test_the_newest_committed_checkpoint_survives_sigkill(
    tmp_path, monkeypatch, in_child, wait, temp_folder
):
    """SIGKILL at random points of a tight saving loop, the temp folder on this or another file
    system: every time the newest committed checkpoint, or the next one, loads whole, the best
    loads, and what was half-written is cleaned."""
    if temp_folder == "other":
        monkeypatch.setenv("TMPDIR", "/dev/shm")
    draws = random.Random(0)
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    committed = num_half_written = 0
    for _ in range(NUM_KILLS // 2):
        reader, report = os.pipe()
        pid = in_child(partial(save_for_ever, tmp_path, committed + 2, report))
        os.close(report)
        with open(reader) as lines:
            committed = int(lines.readline())
            time.sleep(draws.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            wait(pid)
            committed = int([committed, *lines.read().split()][-1])
        state = checkpoints.load_newest()[1]
        assert state["epoch"] in (committed, committed + 1)
        assert is_whole(state)
        if (tmp_path / BEST).exists():
            assert is_whole(read_checkpoint(tmp_path / BEST))
        num_half_written += len(list(tmp_path.glob(".*")))
        checkpoints.clean()
        assert not list(tmp_path.glob(".*"))
    assert num_half_written > 0  # else the kills did not hit a save


def save_and_die(folder: Path, owner: Any, call: str, moment: str, number: int) -> None:
    """Save two states, then die before or after the `number`-th call of a save of a third."""
    checkpoints = Checkpoints(folder, keep_last=1)
    for epoch in (1, 2):
        checkpoints.save(make_state(epoch), epoch=epoch)
    real, calls = getattr(owner, call), itertools.count(1)

    def dying(*args: Any, **kwargs: Any) -> Any:
        is_last = next(calls) == number
        if is_last and moment == "before":
            os._exit(9)
        result = real(*args, **kwargs)
        if is_last:
            os._exit(9)
        return result

    setattr(owner, call, dying)
    checkpoints.save(make_state(3), epoch=3, best=True)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("owner", "call"),
    [
        *[(builtins, "open"), (os, "open"), (os, "fsync"), (os, "link"), (os, "replace")],
        (Path, "unlink"),
    ],
)
def test_a_process_that_dies_at_a_file_operation_leaves_a_valid_state(
    tmp_path, in_child, wait, owner, call, moment
):
    """`os._exit` before and after every file operation of a save: the newest checkpoint is the old
    or the new one, and loads whole."""
    num_deaths = 0
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        pid = in_child(partial(save_and_die, folder, owner, call, moment, number))
        died = wait(pid) == 9
        state = Checkpoints(folder).load_newest()[1]
        assert is_whole(state)
        assert state["epoch"] in ((2, 3) if died else (3,))
        if not died:
            break
        num_deaths += 1
    assert num_deaths > 0


def damaged(content: bytes, kind: str, draws: random.Random) -> bytes:
    if kind == "truncated":
        return content[: draws.randrange(len(content))]
    changed = bytearray(content)
    if kind == "flipped":
        changed[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    else:
        start = draws.randrange(len(content) // PAGE + 1) * PAGE
        changed[start : start + PAGE] = bytes(len(changed[start : start + PAGE]))
    return bytes(changed)


@pytest.mark.parametrize(
    ("kind", "count"),
    [("truncated", NUM_TRUNCATIONS), ("flipped", NUM_FLIPS), ("zeroed", NUM_ZEROED)],
)
def test_a_damaged_checkpoint_is_refused_or_loads_the_same(tmp_path, capsys, kind, count):
    """Truncations, flipped bits, zeroed pages: each is refused, or loads contents equal tensor by
    tensor (the damage hit nothing that counts)."""
    draws = random.Random(kind)
    torch.manual_seed(0)
    checkpoints = Checkpoints(tmp_path)
    state = {
        "model": {f"w{i}": torch.randn(40, 50) for i in range(4)},
        "epoch": 1,
        "text": "a" * 99,
    }
    path = checkpoints.save(state, epoch=1)
    content = path.read_bytes()
    refused = 0
    for _ in range(count):
        path.write_bytes(changed := damaged(content, kind, draws))
        try:
            loaded = read_checkpoint(path)
        except CheckpointError:
            refused += 1
            continue
        assert loaded.keys() == state.keys(), changed
        assert all(torch.equal(loaded["model"][k], state["model"][k]) for k in state["model"])
        assert (loaded["epoch"], loaded["text"]) == (1, "a" * 99)
    assert refused >= count * 0.8
    with capsys.disabled():
        print(f"\n{kind}: {refused} of {count} refused, {count - refused} loaded the same")


def test_of_damaged_checkpoints_the_previous_valid_one_is_used_with_one_warning(tmp_path, caplog):
    """The newest two are damaged: the third loads, with one warning; all damaged: an error, and the
    files are as they were."""
    checkpoints = Checkpoints(tmp_path)
    paths = [checkpoints.save(make_state(number), epoch=number) for number in (1, 2, 3)]
    for path in paths[1:]:
        path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level("WARNING", logger="train"):
        assert checkpoints.load_newest()[1]["epoch"] == 1
    assert len(caplog.records) == 1
    paths[0].write_bytes(b"nothing")
    before = {path: path.read_bytes() for path in paths}
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        checkpoints.load_newest()
    assert {path: path.read_bytes() for path in paths} == before


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small file system of its own; unmounted afterwards."""
    places = []

    def mount(options: str) -> Path:
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
            pytest.skip("mounting needs root and mount(8)")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_checkpoint(mounted):
    """A tmpfs of 2 MB fills during a save: WriteError (exit 4) with the path, the old checkpoint
    whole, nothing half-written left."""
    folder = mounted("size=2m")
    checkpoints = Checkpoints(folder)
    checkpoints.save(make_state(1, size=200_000), epoch=1)
    with pytest.raises(WriteError, match=r"checkpoint-epoch2\.pth: .*No space left") as caught:
        checkpoints.save(make_state(2, size=400_000), epoch=2)
    assert caught.value.exit_code == 4
    assert [path.name for path in folder.iterdir()] == ["checkpoint-epoch1.pth"]
    assert is_whole(checkpoints.load_newest()[1])


def test_a_file_size_limit_leaves_the_old_checkpoint(tmp_path):
    """RLIMIT_FSIZE below a checkpoint's size: as with a full disk."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make_state(1, size=1_000), epoch=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(WriteError, match=r"checkpoint-epoch2\.pth: .*File too large"):
            checkpoints.save(make_state(2, size=100_000), epoch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-epoch1.pth"]
    assert is_whole(checkpoints.load_newest()[1])


def test_a_read_only_folder_ends_a_run_before_its_first_epoch(project_root, mounted):
    """A run folder on a read-only mount: exit 4 with the path before the first epoch."""
    folder = mounted("size=2m")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    result = subprocess.run(
        [sys.executable, "train.py", "-c", "digits.yaml", f"trainer.save_dir={folder}"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 4
    assert str(folder) in result.stderr
    assert "Read-only file system" in result.stderr
    assert "Traceback" not in result.stderr
    assert "epoch 1" not in result.stdout


def test_the_highest_step_is_newest_whatever_the_clock_says(tmp_path):
    """The clock set back a day between two saves: the state further in training is the newest."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make_state(1), epoch=1)
    later = checkpoints.save(make_state(2), epoch=2)
    yesterday = time.time() - 86_400
    os.utime(later, (yesterday, yesterday))
    assert checkpoints.load_newest()[0] == later
