"""What memory a run takes: growth over 200 epochs, peak against a loop by hand, in evaluation.

    python benchmarks/memory.py

Each measurement runs in a child process of its own, named by its function, and says what it found
in JSON. The MNIST of `data/` must be there.
"""

import contextlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compare import ROOT, assembled, show

MNIST_EPOCHS = 1
NUM_CLASSES = 100  # outputs of the model that is evaluated
SMALL, LARGE = 20_000, 200_000  # samples that it is evaluated on
EARLY_EPOCH, LAST_EPOCH = 20, 200


def megabytes(field: str) -> float:
    """Return this process's resident size, `VmRSS`, or its peak, `VmHWM`.

    The peak of `getrusage` would start at the size of the parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


# --- what runs in a child ------------------------------------------------------------------------


def long_run() -> dict[str, float]:
    """Return the size after an early and the last epoch of the digits config."""
    import yaml

    from base import Callback
    from base.registry import CALLBACKS

    sizes = []

    @CALLBACKS.register()
    class Sizes(Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            sizes.append(megabytes("VmRSS"))

    config = yaml.safe_load((ROOT / "configs/digits.yaml").read_text())
    changes = (f"trainer.epochs={LAST_EPOCH}", "callbacks=[Sizes]")
    with assembled(config | {"device": "cpu"}, *changes) as (trainer, logger):
        trainer.fit(logger=logger, checkpoints=checkpoints(trainer, logger))
    return {"early": sizes[EARLY_EPOCH - 1], "last": sizes[-1]}


def checkpoints(trainer: Any, logger: Any) -> Any:
    """Return the checkpoints of the run that a logger writes of."""
    from base.checkpoint.checkpoints import Checkpoints

    return Checkpoints(logger._run.checkpoints, keep_last=trainer.settings.keep_last)


def mnist_ours() -> dict[str, float]:
    """Return the peak of train.py on the legacy config of MNIST, with everything on."""
    import tempfile

    import torch

    import train
    from base.config.check import load_config

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(ROOT):
        changes = [f"trainer.save_dir={folder}", f"trainer.epochs={MNIST_EPOCHS}", "device=cpu"]
        train.main(load_config(ROOT / "configs/config.json", changes))
    return {"peak": megabytes("VmHWM")}


def mnist_by_hand() -> dict[str, float]:
    """Return the peak of a plain loop over the same samples, which are in memory once."""
    import importlib.util

    import torch
    import torch.nn.functional as F

    # torchvision's own operators may be missing; importing `base` would bring more than this
    spec = importlib.util.spec_from_file_location("ops", ROOT / "base/runtime/torchvision_ops.py")
    operators = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(operators)  # they last as long as the module
    from torchvision import datasets, transforms  # noqa: F401

    torch.set_num_threads(1)
    dataset = datasets.MNIST(ROOT / "data", train=True)
    images, targets = dataset.data.unsqueeze(1).float(), dataset.targets
    images.div_(255).sub_(0.1307).div_(0.3081)  # (60000, 1, 28, 28)
    order = torch.randperm(len(images))
    training, validation = order[6000:], order[:6000]
    model = lenet()
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    for _ in range(MNIST_EPOCHS):
        for index in training[torch.randperm(len(training))].split(128):
            optimizer.zero_grad()
            F.nll_loss(model(images[index]), targets[index]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for index in validation.split(128):
                F.nll_loss(model(images[index]), targets[index]).item()
        model.train()
    return {"peak": megabytes("VmHWM")}


def lenet() -> Any:
    """Return layers as those of `MnistModel`, without importing the project."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10), nn.LogSoftmax(1)),
    )


def validation(num_samples: int) -> dict[str, float]:
    """Return the peak of validating samples that are drawn when asked for."""
    import torch
    from torch.utils.data import Dataset

    from base.registry import DATASETS

    @DATASETS.register()
    class Drawn(Dataset):
        def __init__(self, num_samples: int) -> None:
            self.num_samples, self.sample = num_samples, torch.randn(8)

        def __len__(self) -> int:
            return self.num_samples

        def __getitem__(self, index: int) -> Any:
            return self.sample, index % NUM_CLASSES

    config = {
        "name": "validation",
        "device": "cpu",
        "dataset": {"type": "Drawn", "args": {"num_samples": 100}},
        "valid_dataset": {"type": "Drawn", "args": {"num_samples": num_samples}},
        "data_loader": {"args": {"batch_size": 100}, "in_memory": False},
        "model": {"type": "Linear", "args": [8, NUM_CLASSES]},
        "loss": "cross_entropy",
        "metrics": ["accuracy", {"type": "MulticlassAccuracy", "args": [NUM_CLASSES]}],
        "optimizer": {"type": "SGD", "args": {"lr": 0.1}},
        "trainer": {"epochs": 1},
    }
    with assembled(config) as (trainer, _):
        trainer.evaluate()
    return {"peak": megabytes("VmHWM")}


# --- what starts them ----------------------------------------------------------------------------


def in_child(work: Callable[..., dict[str, float]], *args: int) -> dict[str, float]:
    """Return what a function of a file that calls `main_or_child` finds in a process of its own."""
    show(" ".join([work.__name__, *map(str, args)]))
    command = [sys.executable, inspect.getfile(work), work.__name__, *map(str, args)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    show("")
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print one line each, with its ratio."""
    size = in_child(long_run)
    early, last = size["early"], size["last"]
    print(f"digits, epoch {EARLY_EPOCH:7}   {early:7.1f} MiB")
    print(f"digits, epoch {LAST_EPOCH:7}   {last:7.1f} MiB   growth {last / early - 1:+.2%}")
    own, hand = in_child(mnist_ours)["peak"], in_child(mnist_by_hand)["peak"]
    print(f"MNIST, peak by hand     {hand:7.1f} MiB")
    print(f"MNIST, peak of ours     {own:7.1f} MiB   ratio {own / hand:.3f}")
    small, large = (in_child(validation, number)["peak"] for number in (SMALL, LARGE))
    print(f"validation of {SMALL:7,}   {small:7.1f} MiB")
    print(f"validation of {LARGE:7,}   {large:7.1f} MiB   ratio {large / small:.3f}")


def main_or_child(names: dict[str, Any]) -> None:
    """Run `main`, or in a child the function that `in_child` asked for, out of these names."""
    if len(sys.argv) == 1:
        names["main"]()
    else:
        print(json.dumps(names[sys.argv[1]](*map(int, sys.argv[2:]))))


if __name__ == "__main__":
    main_or_child(globals())
