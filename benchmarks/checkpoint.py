"""What a safe checkpoint costs: saving and reading 100 MB against plain torch.save and torch.load.

    python benchmarks/checkpoint.py

Prints the median of interleaved rounds and ratios against the baseline of the same run.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from base.checkpoint.checkpoints import Checkpoints, read_checkpoint

NUM_ROUNDS = 9
NUM_TENSORS, TENSOR_SIZE = 25, 1_000_000  # float32: 100 MB


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print one line each for saving and reading."""
    state = {"model": {f"w{i}": torch.randn(TENSOR_SIZE) for i in range(NUM_TENSORS)}, "epoch": 1}
    with tempfile.TemporaryDirectory() as folder:
        plain, checkpoints = Path(folder) / "plain.pth", Checkpoints(Path(folder))
        safe = checkpoints.save(state, epoch=1)
        torch.save(state, plain)
        works = {
            "save": (lambda: torch.save(state, plain), lambda: checkpoints.save(state, epoch=1)),
            "read": (lambda: torch.load(plain, weights_only=True), lambda: read_checkpoint(safe)),
        }
        for name, (baseline, ours) in works.items():
            rounds = [(seconds(baseline), seconds(ours)) for _ in range(NUM_ROUNDS)]
            base, own = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"{name}: {own:.3f} s, plain torch {base:.3f} s, ratio {own / base:.2f}")


if __name__ == "__main__":
    main()
