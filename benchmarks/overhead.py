"""What the loop costs: a step with everything on against the loop one would write by hand.

    python benchmarks/overhead.py

A model so small (Linear 32-32-32, batches of 32, one thread, data in memory) that almost nothing
but the loop is measured. On are the progress bar, a metric, TensorBoard and metrics.csv; the state
that an exact resume needs is kept and signals are looked for, as always.
"""

import io
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
import torch.nn.functional as F
from compare import assembled, medians, seconds
from torch import nn
from torch.utils.data import TensorDataset

from base.registry import DATASETS

NUM_STEPS, BATCH_SIZE, WIDTH = 3000, 32, 32
NUM_ROUNDS = 5
CONFIG = {
    "name": "overhead",
    "device": "cpu",
    "dataset": "Noise",
    "data_loader": {"args": {"batch_size": BATCH_SIZE}},
    "model": {
        "type": "Sequential",
        "args": [
            {"type": "Linear", "args": [WIDTH, WIDTH]},
            {"type": "ReLU"},
            {"type": "Linear", "args": [WIDTH, WIDTH]},
        ],
    },
    "loss": "cross_entropy",
    "metrics": ["accuracy"],
    "optimizer": {"type": "Adam", "args": {"lr": 0.001}},
    "trainer": {"epochs": 1},
}
FEATURES = {
    "accuracy": ["metrics=[]"],
    "a second metric (top_k_acc)": ["metrics=[accuracy, top_k_acc]"],
    "TensorBoard": ["logger.tensorboard=false"],
    "metrics.csv": ["logger.csv=false"],
    "OneCycleLR, each step": ["lr_scheduler={type: OneCycleLR, interval: step}"],
    "clip_grad_norm": ["trainer.clip_grad_norm=1.0"],
    "ema_decay": ["trainer.ema_decay=0.99"],
    "precision: bf16": ["trainer.precision=bf16"],
    "log_interval: 10 instead of 50": ["trainer.log_interval=10"],
    "a torchmetrics metric": [
        "metrics=[accuracy, {type: MulticlassAccuracy, args: {num_classes: 32}}]"
    ],
}


@DATASETS.register()
class Noise(TensorDataset):
    """Normal draws (32,) of random classes."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        num_samples = NUM_STEPS * BATCH_SIZE
        super().__init__(
            torch.randn(num_samples, WIDTH, generator=generator),
            torch.randint(WIDTH, (num_samples,), generator=generator),
        )


class Terminal(io.StringIO):
    """A terminal, so that the progress bar is alive."""

    def isatty(self) -> bool:
        return True


def by_hand(*, fused: bool | None = None) -> float:
    """Return the seconds a step takes in a plain loop over tensors."""
    inputs, targets = Noise().tensors
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=fused)

    def epoch() -> None:
        order = torch.randperm(len(inputs))
        for start in range(0, len(order), BATCH_SIZE):
            index = order[start : start + BATCH_SIZE]
            batch, target = inputs[index], targets[index]
            optimizer.zero_grad()
            F.cross_entropy(model(batch), target).backward()
            optimizer.step()

    return seconds(epoch) / NUM_STEPS


def ours(*overrides: str) -> float:
    """Return the seconds a step takes in `fit`, with the epoch's end but without a checkpoint."""
    with mock.patch.object(sys, "stderr", Terminal()), assembled(CONFIG, *overrides) as made:
        trainer, logger = made
        return seconds(partial(trainer.fit, logger=logger)) / NUM_STEPS


def main() -> None:
    """Measure and print the ratios, then what each feature costs."""
    torch.set_num_threads(1)
    works: dict[str, Callable[[], float]] = {
        "by hand": by_hand,
        "by hand, fused": partial(by_hand, fused=True),
        "ours": ours,
        "ours, not fused": partial(ours, "optimizer.args.fused=false"),
    }
    found = medians(works, num_rounds=NUM_ROUNDS)
    for name, value in found.items():
        print(f"{name:32} {value * 1e6:7.1f} us a step")
    print(f"{'ours / by hand':32} {found['ours'] / found['by hand']:7.2f}")
    print(f"{'the same, both fused':32} {found['ours'] / found['by hand, fused']:7.2f}")
    print(f"{'the same, both not':32} {found['ours, not fused'] / found['by hand']:7.2f}")
    features = {name: partial(ours, *overrides) for name, overrides in FEATURES.items()}
    found = medians({"ours": ours} | features, num_rounds=NUM_ROUNDS)
    plain = found.pop("ours")
    for name, value in found.items():
        cost = (
            abs(value - plain)
            if name in ("accuracy", "TensorBoard", "metrics.csv")
            else value - plain
        )
        print(f"{name:32} {cost * 1e6:+7.1f} us a step, {cost / plain:+6.1%}")


if __name__ == "__main__":
    main()
