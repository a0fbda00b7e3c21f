"""How time and memory grow with samples, epochs, parameters, metrics, classes, and on a resume.

    python benchmarks/growth.py

Each size runs in a child process of its own. Seconds are those of the processor, the children's
imports left out; memory is the peak above the size before the run was built. The last columns are
the cost per unit of the largest size over that of the smallest: 1 is linear, below is better. What
costs the same at any size is in it; "added" leaves it out: the cost of each unit between the two
largest sizes over that between the two smallest.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from compare import assembled
from memory import checkpoints, in_child, main_or_child, megabytes

WIDTH = 32
FAR = 1_000_000  # the batch of an epoch that a run is resumed at
NUM_ROUNDS = 5
CONFIG = {
    "name": "growth",
    "device": "cpu",
    "data_loader": {"args": {"batch_size": 32}},
    "loss": "cross_entropy",
    "metrics": ["accuracy"],
    "optimizer": {"type": "Adam", "args": {"lr": 0.001}},
    "trainer": {"epochs": 1},
}


def growing(
    *, samples: int, width: int = WIDTH, classes: int = WIDTH, **sections: Any
) -> dict[str, Any]:
    """Return the config of a linear model of noise; `sections` replace those of `CONFIG`."""
    import torch
    from torch.utils.data import TensorDataset

    from base.registry import DATASETS

    @DATASETS.register()
    class Noise(TensorDataset):
        def __init__(self, samples: int, width: int, classes: int) -> None:
            generator = torch.Generator().manual_seed(1)
            super().__init__(
                torch.randn(samples, width, generator=generator),
                torch.randint(classes, (samples,), generator=generator),
            )

    noise = {"samples": samples, "width": width, "classes": classes}
    return CONFIG | {
        "dataset": {"type": "Noise", "args": noise},
        "model": {"type": "Linear", "args": [width, classes]},
        **sections,
    }


def fit(config: dict[str, Any], *overrides: str) -> dict[str, float]:
    """Return what a whole run takes, from building it to its curves."""
    warm_up()
    before, started = megabytes("VmRSS"), time.process_time()
    with assembled(config, *overrides) as (trainer, logger):
        summary = trainer.fit(logger=logger, checkpoints=checkpoints(trainer, logger))
        logger.finish(summary, trainer.config.model_dump())
    return {"seconds": time.process_time() - started, "MiB": megabytes("VmHWM") - before}


def warm_up() -> None:
    """Run once what imports, so that only what grows is measured."""
    with assembled(growing(samples=64)) as (trainer, logger):
        logger.finish(trainer.fit(logger=logger))


# --- what runs in a child ------------------------------------------------------------------------


def samples(number: int) -> dict[str, float]:
    """One epoch of samples in memory."""
    return fit(growing(samples=number))


def epochs(number: int) -> dict[str, float]:
    """Epochs of one step, with validation, checkpoints, metrics.csv and curves."""
    loader = {"args": {"batch_size": 32, "validation_split": 0.5}}
    return fit(growing(samples=64, data_loader=loader), f"trainer.epochs={number}")


def metrics(number: int) -> dict[str, float]:
    """An epoch of 3,000 steps with some metrics, each a function of a batch."""
    from base.registry import METRICS
    from model.metric import accuracy

    names = [f"accuracy_{position}" for position in range(number)]
    for name in names:
        METRICS.register(name)(lambda output, target: accuracy(output, target).float().mean())
    return fit(growing(samples=3000 * 32, metrics=names))


def step(number: int) -> dict[str, float]:
    """A step of a square layer with so many parameters, the fastest of some."""
    return _of_parameters(number, save=False)


def save(number: int) -> dict[str, float]:
    """A checkpoint of it, Adam's state included."""
    return _of_parameters(number, save=True)


def _of_parameters(number: int, *, save: bool) -> dict[str, float]:
    warm_up()
    width = round(number**0.5)
    config = growing(samples=32 * NUM_ROUNDS, width=width, classes=width)
    before = megabytes("VmRSS")
    with assembled(config, "logger.tensorboard=false") as (trainer, logger):
        moments = [time.process_time()]
        trainer.callbacks.append(_clock(moments))
        trainer.fit(logger=logger)
        taken = min(after - start for start, after in pairwise(moments[1:]))
        if save:
            trainer.checkpoints = checkpoints(trainer, logger)
            taken = _fastest(trainer.save, num_rounds=2)
    return {"seconds": taken, "MiB": megabytes("VmHWM") - before}


def _clock(moments: list[float]) -> Any:
    from base import Callback

    class Clock(Callback):
        def on_step(self, trainer: Any) -> None:
            moments.append(time.process_time())

    return Clock()


def _fastest(work: Callable[[], object], *, num_rounds: int) -> float:
    taken = []
    for _ in range(num_rounds):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def classes(number: int) -> dict[str, float]:
    """The evaluation of test.py on 20,000 samples: metrics, report, confusions, predictions."""
    import contextlib
    import io

    from logger.run_logger import open_evaluation_logger
    from trainer.evaluation import evaluate

    def measure(number: int, num_samples: int) -> dict[str, float]:
        before, started = megabytes("VmRSS"), time.process_time()
        config = growing(samples=num_samples, classes=number)
        with (
            tempfile.TemporaryDirectory() as folder,
            assembled(config, "logger.tensorboard=false") as (trainer, _),
            contextlib.redirect_stdout(io.StringIO()) as printed,
        ):
            trainer.valid_data_loader = trainer.data_loader
            trainer.num_valid_batches = trainer.num_batches
            evaluate(trainer, Path(folder), open_evaluation_logger(trainer.config))
            files = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
        taken = {"seconds": time.process_time() - started, "MiB": megabytes("VmHWM") - before}
        return taken | {"MiB on disk": files, "lines": printed.getvalue().count("\n")}

    measure(10, 64)
    return measure(number, 20_000)


def resume(number: int) -> dict[str, float]:
    """The first batch from batch `number` on, of 2,000,000 samples in memory."""
    return _first_batch(number, in_memory=True)


def resume_reading(number: int) -> dict[str, float]:
    """The same where samples are read one by one by the main process."""
    return _first_batch(number, in_memory=False)


def _first_batch(number: int, *, in_memory: bool) -> dict[str, float]:
    loader = {"args": {"batch_size": 1}, "in_memory": in_memory}
    before = megabytes("VmRSS")
    with assembled(growing(samples=2 * FAR, width=4, data_loader=loader)) as (trainer, _):
        data = trainer.data_loader
        first = functools.partial(next_of, data, number, len(data) - number)
        return {"seconds": _fastest(first, num_rounds=3), "MiB": megabytes("VmHWM") - before}


def next_of(loader: Any, start: int, count: int) -> Any:
    """Return the first of some batches, as a resumed run asks for them."""
    return next(loader.batches(start, count))


def validate(number: int) -> dict[str, float]:
    """The validation of samples in memory, which are 40 bytes each; outputs are 400."""
    warm_up()
    before = megabytes("VmRSS")
    loader = {"args": {"batch_size": 100, "validation_split": number}}
    config = growing(samples=number + 100, width=8, classes=100, data_loader=loader)
    with assembled(config) as (trainer, _):
        started = time.process_time()
        trainer.evaluate()
        return {"seconds": time.process_time() - started, "MiB": megabytes("VmHWM") - before}


# --- what starts them ----------------------------------------------------------------------------

CASES: dict[Callable[[int], dict[str, float]], tuple[int, ...]] = {
    samples: (10_000, 100_000, 1_000_000),
    epochs: (5, 50, 500),
    metrics: (1, 10, 20),
    step: (10_000, 1_000_000, 100_000_000),
    save: (10_000, 1_000_000, 100_000_000),
    classes: (10, 100, 1000, 10_000),
    resume: (1, FAR),
    resume_reading: (1, FAR),
    validate: (10_000, 100_000, 1_000_000),
}
SAME_COST = (resume, resume_reading)  # the number is no amount of work


def growth(sizes: Sequence[int], costs: Sequence[float]) -> tuple[float, float]:
    """Return the cost per unit, and per added unit, of the largest sizes over the smallest."""
    whole = costs[-1] / sizes[-1] / (costs[0] / sizes[0])
    if len(sizes) < 3:
        return whole, float("nan")
    added = [
        (after - before) / (larger - smaller)
        for smaller, larger, before, after in zip(sizes, sizes[1:], costs, costs[1:], strict=False)
    ]
    return whole, added[-1] / added[0]


def main() -> None:
    """Measure and print a table."""
    print("| what | number | CPU s | us per unit | peak MiB | on disk MiB | ratio (added) |")
    print("|---|---|---|---|---|---|---|")
    for work, sizes in CASES.items():
        found = [in_child(work, size) for size in sizes]
        costs = [one["seconds"] for one in found]
        for size, one in zip(sizes, found, strict=True):
            ratio = ""
            if size == sizes[-1]:
                whole, added = growth(sizes, costs)
                ratio = f"{whole:.2f} ({added:.2f})"
                if work in SAME_COST:
                    ratio = f"{costs[-1] / costs[0]:.2f} in all"
            unit = "" if work in SAME_COST else f"{one['seconds'] / size * 1e6:.4g}"
            disk = f"{one['MiB on disk']:.1f}" if "MiB on disk" in one else ""
            print(
                f"| {work.__name__} | {size:,} | {one['seconds']:.4f} | {unit} | {one['MiB']:.0f} "
                f"| {disk} | {ratio} |",
                flush=True,
            )


if __name__ == "__main__":
    main_or_child(globals())
