"""What starting costs: the help, a report on a broken config, and the first step of training.

    python benchmarks/start.py

Each is a process of its own beside one that does as little as can be: an empty command's help,
imports of what the config names, and a script by hand that takes one step on the digits. The help
and the report are measured in seconds of the processor, the first step in those of the clock; both
processes of it end at once after that step.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial

from compare import ROOT, medians, seconds

NUM_ROUNDS = 7
DIGITS = ("-c", "digits.yaml")
EMPTY = """
import typer
app = typer.Typer()
@app.command()
def command():
    pass
app()
"""
# beside a CPU-only torch, torchvision can be imported only after base/runtime/torchvision_ops.py
TORCH = "import sys, torch, pydantic, yaml; sys.path.append('base'); import torchvision_ops"
BY_HAND = f"""
import os
{TORCH}
import torchvision
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

layers, channels = [], 1
for width in (32, 32, 0, 64, 64):
    if width == 0:
        layers.append(nn.MaxPool2d(2))
        continue
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    channels = width
model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
digits = load_digits()
images = torch.from_numpy(digits.images / 16).float().unsqueeze(1)
targets = torch.from_numpy(digits.target)
index = torch.randperm(len(images))[:64]
F.cross_entropy(model(images[index]), targets[index]).backward()
optimizer.step()
os._exit(0)
"""
FIRST_STEP = """
import os, sys
sys.path.insert(0, '.')
from trainer import Trainer
Trainer._after_step = lambda trainer: os._exit(0)
from train import app
app()
"""
# A broken config, what it would take merely to import what it names, and what to call it.
BROKEN = {
    "wrong model, metric, key": (
        [*DIGITS, "model.type=ConfNet", "metrics=[acuracy]", "trainer.epoch=3"],
        TORCH,
    ),
    "wrong lr, torchvision": (
        ["-c", "mnist.yaml", "optimizer.args.lr=x"],
        f"{TORCH}; import torchvision.transforms.v2",
    ),
    "wrong lr, torchmetrics": (
        [*DIGITS, "metrics=[{type: MulticlassRecall, args: [10]}]", "optimizer.args.lr=x"],
        f"{TORCH}; import torchmetrics",
    ),
}


def start(*args: str, expected: int = 0) -> None:
    """Run Python from the project's folder until it ends.

    Raises:
        RuntimeError: it ends with another code than the expected.
    """
    ended = subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True)
    if ended.returncode != expected:
        raise RuntimeError(f"{args} ended with {ended.returncode}: {ended.stdout}{ended.stderr}")


def cpu_seconds(work: Callable[[], None]) -> float:
    """Return the processor time of the processes that one call starts and awaits."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(
    what: str,
    measure: Callable[[Callable[[], None]], float],
    *,
    least: Callable[[], None],
    ours: Callable[[], None],
) -> None:
    """Measure both in turns and print their medians and the ratio."""
    works = {"least": partial(measure, least), "ours": partial(measure, ours)}
    found = medians(works, num_rounds=NUM_ROUNDS)
    ratio = found["ours"] / found["least"]
    print(f"{what:40} {found['least']:6.3f} s {found['ours']:6.3f} s {ratio:6.2f}", flush=True)


def main() -> None:
    """Measure and print each start, its least and the ratio."""
    print(f"{'':40} {'least':>8} {'ours':>8} {'ratio':>6}")
    compare(
        "--help (CPU)", cpu_seconds,
        least=partial(start, "-c", EMPTY, "--help"), ours=partial(start, "train.py", "--help"),
    )  # fmt: skip
    for name, (args, imports) in BROKEN.items():
        compare(
            f"--check, {name} (CPU)", cpu_seconds,
            least=partial(start, "-c", imports),
            ours=partial(start, "train.py", *args, "--check", expected=2),
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        quiet = (f"trainer.save_dir={folder}", "logger.verbosity=0")
        compare(
            "the first step (wall)", seconds,
            least=partial(start, "-c", BY_HAND),
            ours=partial(start, "-c", FIRST_STEP, *DIGITS, *quiet),
        )  # fmt: skip


if __name__ == "__main__":
    main()
