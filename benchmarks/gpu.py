"""Training on an accelerator: the project's loop against two by hand, and how busy the device is.

    python benchmarks/gpu.py [DEVICE]

LeNet on images like MNIST's and torchvision's ResNet-18 on 3 x 32 x 32, noise both, which is as
quick as pictures. By hand are a loop over a plain DataLoader (2 workers, pinned memory) and one
over tensors that lie on the device. The profiler counts how often the host waited for the device in
the steps between two log lines, which should be never. DEVICE is cuda; cpu is for trying it out.
"""

import sys
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from compare import assembled, medians, seconds
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from base.registry import DATASETS, MODELS

BATCH_SIZE, NUM_ROUNDS = 128, 5
SHAPES = {"MnistModel": (60_000, 1, 28, 28), "resnet18": (50_000, 3, 32, 32)}
# what makes the host wait, by the names that the profiler gives them
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Memcpy DtoH")


@DATASETS.register()
class Noise(TensorDataset):
    """Noise (N, C, H, W) of ten classes."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__(torch.randn(shape), torch.randint(10, (shape[0],)))


def config(model: str, device: str, num_samples: int) -> dict[str, Any]:
    """Return the config of a run over one epoch of noise."""
    shape = [num_samples, *SHAPES[model][1:]]
    return {
        "name": "gpu",
        "device": device,
        "dataset": {"type": "Noise", "args": {"shape": shape}},
        "data_loader": {"args": {"batch_size": BATCH_SIZE}},
        "model": {"type": model, "args": {"num_classes": 10}},
        "loss": "cross_entropy",
        "metrics": ["accuracy"],
        "optimizer": "AdamW",
        "trainer": {"epochs": 1},
    }


def wait(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def by_hand(name: str, device: torch.device, num_samples: int, *, on_device: bool) -> float:
    """Return the seconds of an epoch of a plain loop."""
    data = Noise([num_samples, *SHAPES[name][1:]])
    model = MODELS.find(name)(num_classes=10).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tensors = [tensor.to(device) for tensor in data.tensors] if on_device else []
    loader = DataLoader(
        data, BATCH_SIZE, shuffle=True, num_workers=2, pin_memory=device.type == "cuda"
    )

    def cut() -> Any:
        order = torch.randperm(num_samples, device=device)
        for start in range(0, num_samples, BATCH_SIZE):
            index = order[start : start + BATCH_SIZE]
            yield [tensor[index] for tensor in tensors]

    def epoch() -> None:
        for batch in cut() if on_device else loader:
            inputs, targets = (part.to(device, non_blocking=True) for part in batch)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        wait(device)

    return seconds(epoch)


def ours(name: str, device: torch.device, num_samples: int, *overrides: str) -> float:
    """Return the seconds of an epoch of the project's loop."""
    with assembled(config(name, str(device), num_samples), *overrides) as (trainer, logger):
        trainer.logger, trainer.checkpoints = logger, None
        return seconds(trainer.train_epoch)  # its averages wait for the device


def waits_and_busy_share(name: str, device: torch.device, num_steps: int) -> tuple[int, float]:
    """Return how often the host waited in an epoch with one log line, and the busy share of it."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        took = ours(name, device, num_steps * BATCH_SIZE, f"trainer.log_interval={num_steps}")
    events = recorded.key_averages()
    waits = sum(event.count for event in events if event.key.startswith(WAITS))
    return waits, sum(event.self_device_time_total for event in events) / 1e6 / took


def main() -> None:
    """Measure and print, for each network, the epochs and what the profiler saw."""
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")
    for name, shape in SHAPES.items():
        num_samples = shape[0] if device.type != "cpu" else 10 * BATCH_SIZE
        work = partial(ours, name, device, num_samples)
        found = medians(
            {
                "ours, data on the device": work,
                "ours, channels_last": partial(work, "trainer.channels_last=true"),
                "ours, bf16": partial(work, "trainer.precision=bf16"),
                "ours, compile": partial(work, "trainer.compile=true"),
                "ours, data read by 2 workers": partial(
                    work, "data_loader.in_memory=false", "data_loader.args.num_workers=2"
                ),
                "by hand, data on the device": partial(
                    by_hand, name, device, num_samples, on_device=True
                ),
                "by hand, plain DataLoader": partial(
                    by_hand, name, device, num_samples, on_device=False
                ),
            },
            num_rounds=NUM_ROUNDS,
        )
        print(f"\n{name}, {num_samples:,} samples, batch {BATCH_SIZE}, {device}")
        own = found["ours, data on the device"]
        for way, took in found.items():
            print(f"{way:30} {took:7.2f} s  {num_samples / took:9.0f} samples/s  {took / own:5.2f}")
        few, _ = waits_and_busy_share(name, device, 20)
        many, busy = waits_and_busy_share(name, device, 70)
        print(f"waits in 50 more steps without a log line: {many - few}; device busy {busy:.0%}")


if __name__ == "__main__":
    main()
