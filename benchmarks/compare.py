"""What the benchmarks share: interleaved rounds, medians, and a run of the project to measure."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads shall not disturb the others


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(works: Mapping[str, Callable[[], float]], *, num_rounds: int) -> dict[str, float]:
    """Return each work's median of what it measures, all of them taking turns.

    A first round, which warms caches, does not count.
    """
    rounds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(num_rounds + 1):
        for name, work in works.items():
            value = work()
            if number:
                rounds[name].append(value)
            show(f"round {number}/{num_rounds}  {name}")
    show("")
    return {name: statistics.median(values) for name, values in rounds.items()}


def show(progress: str) -> None:
    """Replace the line of progress on a terminal."""
    if sys.__stderr__.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.__stderr__, flush=True)


@contextmanager
def assembled(config: Mapping[str, Any], *overrides: str) -> Iterator[tuple[Any, Any]]:
    """Yield the trainer and the logger of a config's run, whose directory is then removed."""
    import torch
    import yaml

    from base.config.check import load_config
    from trainer.assembly import build_trainer
    from trainer.resume import ResumePoint
    from trainer.run import open_run

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(dict(config)))
        quiet = (f"trainer.save_dir={folder}", "logger.verbosity=0")
        loaded = load_config(path, [*quiet, *overrides])
        trainer = build_trainer(loaded, torch.device(loaded.device))
        with open_run(loaded, ResumePoint()) as (_, logger, _):
            yield trainer, logger
