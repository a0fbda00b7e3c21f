"""State dicts to disk and back: plain data, written atomically, verified, the newest kept.

A checkpoint is numbers, strings, lists, dicts and tensors in torch's zip format, so that it loads
with `weights_only=True`. It is read only after the checksum of every record was compared.
"""

import json
import logging
import os
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from base.checkpoint.files import TEMPORARY, replacing, sync
from base.errors import CheckpointError

log = logging.getLogger("train")

BEST = "model_best.pth"
NAME = re.compile(r"checkpoint-epoch(\d+)(?:-step(\d+))?\.pth")

# What loads again without an allow-list; subclasses, such as numpy's float64 of float, do not.
PLAIN = {type(None), bool, int, float, complex, str, bytes, Tensor, nn.Parameter}
PLAIN |= {torch.Size, torch.dtype, torch.device}
FOLDER = 0x10  # a zip record so marked is skipped by torch, which then returns any memory


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state dict of a checkpoint, its tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or holds more than plain data.
    """
    try:
        _verify(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, it holds more than tensors and plain data, so loading it could run "
            "foreign code"
        ) from error
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged or not a checkpoint ({error})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, expected a state dict")
    return state


def _verify(path: Path) -> None:
    """Raise BadZipFile unless every record has its checksum; `torch.load` compares none."""
    with zipfile.ZipFile(path) as records:
        for record in records.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.external_attr & FOLDER:
                raise zipfile.BadZipFile(f"the header of {record.filename} is wrong")
        if damaged := records.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} differs")


def write_checkpoint(path: Path, state: Mapping[str, Any], *, best: Path | None = None) -> None:
    """Write a state dict to a file, whole or not at all, and first to `best` if that is given.

    Raises:
        CheckpointError: something in it is no plain data; the message says where and what.
        WriteError: the disk is full or the folder cannot be written; older files are intact.
    """
    if found := list(_not_plain(state, "")):
        raise CheckpointError(
            f"cannot save {', '.join(found)}: the state dicts of callbacks, schedulers and "
            "`stateful` may hold numbers, strings, lists, dicts and tensors only"
        )
    with replacing(path) as temporary:
        _write(temporary, state)
        if best is not None:  # a run killed between the two finds the same best again
            with replacing(best) as second:
                try:
                    os.link(temporary, second)
                except OSError:  # a file system without hard links
                    _write(second, state)


def _write(path: Path, state: Mapping[str, Any]) -> None:
    with open(path, "wb") as file:
        try:
            torch.save(dict(state), file)  # streamed: no copy of the whole in memory
        except RuntimeError as error:  # torch could not end the file; it may be the disk's OSError
            raise error.__context__ or error from None
        sync(file)
    try:
        _verify(path)
    except zipfile.BadZipFile as error:
        raise OSError(f"what was written reads back differently: {error}") from error


def _not_plain(value: Any, path: str) -> Iterator[str]:
    kind = type(value)
    if kind in (dict, OrderedDict, Counter):
        for key, item in value.items():
            yield from _not_plain(key, f"{path}.{key}")
            yield from _not_plain(item, f"{path}.{key}")
    elif kind in (list, tuple, set):
        for number, item in enumerate(value):
            yield from _not_plain(item, f"{path}.{number}")
    elif kind not in PLAIN:
        yield f"{path.lstrip('.')}, a {kind.__module__}.{kind.__qualname__}"


class Checkpoints:
    """The checkpoints of one run: the newest `keep_last` and the best, in one folder."""

    def __init__(self, folder: Path, *, keep_last: int = 3) -> None:
        self.folder = folder
        self.keep_last = keep_last

    def save(
        self, state: Mapping[str, Any], *, epoch: int, step: int | None = None, best: bool = False
    ) -> Path:
        """Write a state, raising as `write_checkpoint`, and prune older ones.

        `step` is given in the middle of an epoch.
        """
        path = self.folder / checkpoint_name(epoch, step)
        write_checkpoint(path, state, best=self.folder / BEST if best else None)
        self._prune(path)
        return path

    def save_best(self, state: Mapping[str, Any], column: str = "") -> None:
        """Write a state as the best alone, or as the best by a column; raise as `save`."""
        name = BEST.replace(".", f"_{column}.") if column else BEST
        write_checkpoint(self.folder / name, state)

    def newest_first(self) -> list[Path]:
        """Return the checkpoints from the newest to the oldest, by step and not by the clock."""
        paths = [path for path in self.folder.glob("checkpoint-*.pth") if checkpoint_key(path.name)]
        return sorted(paths, key=lambda path: checkpoint_key(path.name), reverse=True)

    def load_newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest valid checkpoint, or None where there never was one.

        Raises:
            CheckpointError: there are checkpoints, but none is valid.
        """
        failures: list[str] = []
        for path in self.newest_first():
            try:
                state = read_checkpoint(path)
            except CheckpointError as error:
                failures.append(str(error))
                continue
            if failures:
                log.warning("%s; continuing from %s", "; ".join(failures), path.name)
            return path, state
        if failures:
            raise CheckpointError("no valid checkpoint:\n" + "\n".join(failures))
        return None

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        for leftover in self.folder.glob(f".*{TEMPORARY}"):
            leftover.unlink(missing_ok=True)

    def _prune(self, written: Path) -> None:
        """Remove older states; one that is ahead of `written` was damaged when the run went on."""
        states = self.newest_first()
        ahead = states.index(written)
        for path in states[:ahead] + states[ahead + self.keep_last :]:
            path.unlink(missing_ok=True)


def checkpoint_name(epoch: int, step: int | None = None) -> str:
    """Return the file name of the state after an epoch, or at a step within it."""
    return f"checkpoint-epoch{epoch}" + (f"-step{step}.pth" if step is not None else ".pth")


def checkpoint_key(name: str) -> tuple[int, float] | None:
    """Return (epoch, step) that order checkpoints; an epoch's end comes after all its steps."""
    match = NAME.fullmatch(name)
    return (int(match[1]), float(match[2] or "inf")) if match else None


def config_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config stored in a checkpoint.

    Raises:
        CheckpointError: it holds none, so it is no checkpoint of this project.
    """
    try:
        return json.loads(state["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError("holds no config: not a checkpoint of this project") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a safetensors file or a checkpoint, its averaged ones if any.

    Any other file of torch's is taken for a state dict of weights.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error
    state = read_checkpoint(path)
    return state.get("ema") or state.get("model") or state
