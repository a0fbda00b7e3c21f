"""What the trainer's tests share: tiny data, a tiny model, and ways to train them in-process."""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import train
from base import BaseDataLoader, Callback
from base.config.check import load_config
from base.config.schema import Config
from base.data.sample_rng import uniform
from base.errors import StoppedError
from base.registry import CALLBACKS, DATASETS, MODELS, TRANSFORMS
from logger import RunLogger
from trainer import Trainer
from trainer.resume import start_from_checkpoint, start_from_config

NUM_CLASSES = 3


@DATASETS.register()
class Blobs(Dataset):
    """Noisy images (1, 6, 6) of three classes, each brighter in a corner of its own."""

    deterministic = True

    def __init__(self, size: int = 44) -> None:
        generator = torch.Generator().manual_seed(size)
        self.targets = torch.arange(size) % NUM_CLASSES
        self.images = torch.randn(size, 1, 6, 6, generator=generator) / 2
        for target, corner in enumerate([(0, 0), (0, 3), (3, 0)]):
            rows, columns = (slice(start, start + 3) for start in corner)
            self.images[self.targets == target, :, rows, columns] += 1

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]


@TRANSFORMS.register()
class Fade:
    """Dims each image of a batch (B, C, H, W) by a share of its own, below `most`."""

    takes_keys = True

    def __init__(self, most: float) -> None:
        self.most = most

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        return images * (1 - self.most * uniform(keys, 1)[:, :, None, None])


@MODELS.register()
class BlobNet(nn.Module):
    """Everything that a resume can get wrong: batch statistics and dropout."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)  # (B, width, 4, 4)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(16 * width, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x))).flatten(1)
        return self.head(F.dropout(x, training=self.training))


@CALLBACKS.register()
class Interrupter(Callback):
    """Sends the run a signal, or fails it like a power cut, at the moments named in `plan`.

    A moment is ("step", number), ("valid", epoch, batch) or ("epoch", number), each counted from 1.
    """

    plan: ClassVar[dict[tuple, str]] = {}

    def __init__(self) -> None:
        self.steps: list[int] = []  # what a callback may have to remember
        self.epochs: list[int] = []

    def on_epoch_start(self, trainer: Trainer) -> None:
        self.epochs.append(trainer.epoch + 1)

    def on_step(self, trainer: Trainer) -> None:
        self.steps.append(trainer.step)
        self.act(trainer, "step", trainer.step)

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        self.act(trainer, "epoch", trainer.epoch)

    @classmethod
    def act(cls, trainer: Trainer, *moment: Any) -> None:
        action = cls.plan.pop(moment, None)
        if action == "crash":
            raise PowerCut(moment)
        if action is not None:
            trainer.stop_signal.number = getattr(signal, action)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "epochs": list(self.epochs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps, self.epochs = state["steps"], state["epochs"]


class PowerCut(Exception):
    """The end of a process that had no time to save."""


@pytest.fixture
def interrupt(monkeypatch):
    """Return the plan of moments at which training is interrupted, and how."""
    monkeypatch.setattr(Interrupter, "plan", {})
    valid_step = Trainer.valid_step
    seen: list[dict] = []  # kept, so that no later one is taken for it

    def interrupting_valid_step(trainer: Trainer, batch: Any) -> Any:
        if not seen or seen[-1] is not trainer.tracker.sums:  # `reset` makes new sums
            seen.append(trainer.tracker.sums)
            trainer.num_seen = 0
        trainer.num_seen += 1
        Interrupter.act(trainer, "valid", trainer.epoch + 1, trainer.num_seen)
        return valid_step(trainer, batch)

    monkeypatch.setattr(Trainer, "valid_step", interrupting_valid_step)
    return Interrupter.plan


@pytest.fixture
def power_cut() -> type[Exception]:
    return PowerCut


@pytest.fixture
def tree(tmp_path) -> dict[str, Any]:
    """A config of all that a run can have: 9 batches in 5 steps an epoch, of 3 epochs."""
    return {
        "name": "blobs",
        "dataset": {
            "type": "Blobs",
            "transform": [
                {"type": "RandomHorizontalFlip", "args": {"p": 0.3}},
                {"type": "Fade", "args": {"most": 0.5}},
            ],
            "valid_transform": [],
        },
        "data_loader": {"args": {"batch_size": 4, "validation_split": 8, "num_workers": 0}},
        "model": "BlobNet",
        "loss": "cross_entropy",
        "metrics": [
            "accuracy",
            {"type": "MulticlassF1Score", "args": {"num_classes": NUM_CLASSES}},
        ],
        "optimizer": {"type": "AdamW", "args": {"lr": 0.05}},
        "lr_scheduler": {"type": "OneCycleLR", "interval": "step"},
        "trainer": {
            "epochs": 3,
            "monitor": "min val_loss",
            "accumulate": 2,
            "ema_decay": 0.8,
            "log_interval": 2,
            "save_dir": str(tmp_path / "saved"),
        },
        "callbacks": ["Interrupter"],
    }


@pytest.fixture
def load(tmp_path) -> Callable[..., Config]:
    """Return a function from a config tree and overrides to a checked config."""

    def load_tree(tree: Mapping[str, Any], *overrides: str) -> Config:
        path = tmp_path / "tree.yaml"
        path.write_text(yaml.safe_dump(dict(tree)))
        return load_config(path, overrides)

    return load_tree


@pytest.fixture
def start(tmp_path, core_writers_only) -> Callable[..., Path]:
    """Return a function that does what `train.py -c TREE --run-id ID` does; it returns the run."""

    def start_run(tree: Mapping[str, Any], *overrides: str, run_id: str = "run") -> Path:
        path = tmp_path / "tree.yaml"
        path.write_text(yaml.safe_dump(dict(tree)))
        config, start = start_from_config(path, overrides, run_id)
        try:
            train.main(config, start)
        finally:
            start.run.release()
        return start.run.path

    return start_run


@pytest.fixture
def whole_and_resumed(start, interrupt) -> Callable[..., tuple[Path, Path]]:
    """Return a function that trains a tree twice, once stopped at a moment and continued."""

    def start_both(tree: Mapping[str, Any], moment: tuple) -> tuple[Path, Path]:
        whole = start(tree, run_id="whole")
        interrupt[moment] = "SIGTERM"
        with pytest.raises(StoppedError):
            start(tree)
        return whole, start(tree)

    return start_both


@pytest.fixture
def resume(core_writers_only) -> Callable[..., Path]:
    """Return a function that does what `train.py -r PATH` does; it returns the run it went into."""

    def resume_run(path: Path, *overrides: str) -> dict[str, Any]:
        config, start = start_from_checkpoint(path, overrides)
        try:
            return train.main(config, start)
        finally:
            if start.run is not None:
                start.run.release()

    return resume_run


@pytest.fixture
def two_processes(tmp_path) -> Callable[..., list[Any]]:
    """Return a function that calls another on each of two ranks; it returns their results.

    They are forks of this process, as quick to start as that is, where torchrun starts afresh.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("forks a process that uses torch, which only Linux bears")

    def call(function: Callable[[int], Any]) -> list[Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = [
            multiprocessing.get_context("fork").Process(
                target=_run_rank, args=(function, rank, port, tmp_path / f"rank{rank}.pt")
            )
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=60)
            process.kill()
        assert [process.exitcode for process in processes] == [0, 0]
        return [torch.load(tmp_path / f"rank{n}.pt", weights_only=False) for n in range(2)]

    return call


def _run_rank(function: Callable[[int], Any], rank: int, port: int, result: Path) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }

    torch.save(function(rank), result)


@pytest.fixture
def make_trainer() -> Callable[..., Trainer]:
    """Return a function that puts a trainer together without a config file or a run."""

    def make(
        model: nn.Module,
        data: tuple[Tensor, ...] | Dataset,
        *,
        valid: tuple[Tensor, ...] | None = None,
        batch_size: int = 4,
        loss: Callable = F.cross_entropy,
        metrics: Mapping[str, Callable] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        lr_scheduler: Any = None,
        interval: str = "epoch",
        trainer_class: type[Trainer] = Trainer,
        callbacks: tuple[Callback, ...] = (),
        **settings: Any,
    ) -> Trainer:
        tree = {
            "name": "test",
            "model": type(model).__name__,
            "loss": "mse_loss",
            "optimizer": "SGD",
            "trainer": {"epochs": 1, **settings},
        }
        if lr_scheduler is not None:
            kind = type(lr_scheduler).__name__
            tree["lr_scheduler"] = {"type": kind, "interval": interval}
        return trainer_class(
            model,
            loss=loss,
            metrics=metrics or {},
            optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.1),
            lr_scheduler=lr_scheduler,
            data_loader=_loader(data, batch_size),
            valid_data_loader=None if valid is None else _loader(valid, batch_size),
            callbacks=callbacks,
            config=Config.model_validate(tree),
            device=torch.device("cpu"),
        )

    return make


def _loader(data: tuple[Tensor, ...] | Dataset, batch_size: int) -> BaseDataLoader:
    dataset = data if isinstance(data, Dataset) else TensorDataset(*data)
    return BaseDataLoader(dataset, batch_size, shuffle=False)


@pytest.fixture
def fit() -> Callable[..., dict[str, Any]]:
    """Return a function that trains a trainer to the end and logs nothing."""
    return lambda trainer: trainer.fit(logger=RunLogger(None))


@pytest.fixture
def points() -> tuple[Tensor, Tensor]:
    """26 points (26, 5) of three classes: 7 batches of 4, the last of 2."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(26) % NUM_CLASSES
    return torch.randn(26, 5, generator=generator) + targets[:, None], targets
