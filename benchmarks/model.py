"""What the options for the model's own speed give: channels_last, bf16, compile, fused, foreach.

    python benchmarks/model.py [DEVICE]

Seconds of a training step of the LeNet of config.json at batch 128 and of torchvision's ResNet-18
at 32 x 32 at batch 64, with one option changed at a time, against the defaults of the same run
(fp32, contiguous, fused AdamW). A ratio below 1 is quicker.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from compare import ROOT, medians  # noqa: F401  ROOT: the project can be imported
from torch import nn

from base.runtime.device import to_device
from model.model import MnistModel

NUM_ROUNDS, NUM_STEPS = 5, 5
OPTIONS = {
    "defaults": {},
    "channels_last": {"channels_last": True},
    "precision: bf16": {"precision": torch.bfloat16},
    "bf16 and channels_last": {"channels_last": True, "precision": torch.bfloat16},
    "compile": {"compiled": True},
    "optimizer fused: false": {"fused": False},
    "optimizer foreach: true": {"fused": None, "foreach": True},
}


def lenet() -> tuple[nn.Module, torch.Tensor]:
    """Return the network of config.json and a batch for it."""
    return MnistModel(), torch.randn(128, 1, 28, 28)


def resnet() -> tuple[nn.Module, torch.Tensor]:
    """Return torchvision's ResNet-18 for ten classes and a batch for it."""
    from torchvision.models import resnet18

    return resnet18(num_classes=10), torch.randn(64, 3, 32, 32)


def step_timer(
    make: Callable[[], tuple[nn.Module, torch.Tensor]],
    device: torch.device,
    *,
    channels_last: bool = False,
    precision: torch.dtype | None = None,
    compiled: bool = False,
    **optimizer_args: bool | None,
) -> Callable[[], float]:
    """Return a function that gives the seconds of a step, the mean of a few."""
    torch.manual_seed(0)
    model, inputs = make()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)
    inputs = to_device(inputs, device, channels_last=channels_last)
    targets = torch.randint(10, (len(inputs),), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), **({"fused": True} | optimizer_args))
    forward = torch.compile(model) if compiled else model

    def steps() -> float:
        started = time.perf_counter()
        for _ in range(NUM_STEPS):
            with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
                loss = F.cross_entropy(forward(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        loss.item()  # waits for the device
        return (time.perf_counter() - started) / NUM_STEPS

    return steps


def main() -> None:
    """Measure and print a table for each network."""
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    for name, make in (
        ("LeNet 28 x 28, batch 128", lenet),
        ("ResNet-18 32 x 32, batch 64", resnet),
    ):
        timers = {option: step_timer(make, device, **given) for option, given in OPTIONS.items()}
        found = medians(
            {option: partial(timer) for option, timer in timers.items()}, num_rounds=NUM_ROUNDS
        )
        print(f"\n{name}, {device}, {torch.get_num_threads()} threads")
        for option, seconds in found.items():
            print(f"{option:26} {seconds * 1e3:8.2f} ms  {seconds / found['defaults']:6.2f}")


if __name__ == "__main__":
    main()
