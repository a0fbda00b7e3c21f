"""One trial of a sweep: the process that trains it, watched through its run's metrics.csv."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from base.checkpoint.files import write_atomic
from base.config.schema import Config
from base.errors import UsageError
from logger import RunDirectory
from logger.csv_writer import read_rows

if TYPE_CHECKING:
    from optuna import Trial

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


class Job:
    """A trial and its process; `values` are those of the epochs, by the column to follow."""

    def __init__(
        self,
        trial: "Trial",
        values: dict[int, float],
        config: Config,
        run: RunDirectory,
        file: Path,
    ) -> None:
        self.trial, self.values, self.config, self.run = trial, values, config, run
        self.errors_file = file.with_suffix(".txt")
        self.command = [sys.executable, str(TRAIN), "-c", str(file), "--run-id", run.run_id]
        self.process: subprocess.Popen | None = None
        self.is_pruned = False
        self.since = time.monotonic()
        write_atomic(file, config.to_yaml())

    def look(self, slot: int, parallel: int) -> int | None:
        """Start the process once its run is free; report new epochs; return its exit code."""
        if self.process is None:
            if self._run_is_free():
                self._start(environment(slot, parallel, self.config.device))
            return None
        code = self.process.poll()
        column = self.config.trainer.monitor.split()[1]
        for row in read_rows(self.run.metrics_file):
            self._report(int(row["epoch"]), row.get(column, math.nan))
        return code

    def _run_is_free(self) -> bool:
        """Tell whether no process goes on whose sweep was killed."""
        try:
            if self.run.path.exists():
                self.run.acquire()
        except UsageError:
            return False
        self.run.release()
        return True

    def _start(self, environ: dict[str, str]) -> None:
        with self.errors_file.open("w") as errors:
            self.process = subprocess.Popen(
                self.command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # train.log has it
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the sweep, which passes it on once
            )

    def _report(self, epoch: int, value: float) -> None:
        if self.is_pruned or epoch in self.values:
            return
        self.values[epoch] = value
        self.trial.report(value, epoch)
        if epoch < self.config.trainer.epochs and self.trial.should_prune():
            self.is_pruned = True
            self.stop()

    def stop(self) -> None:
        """Ask the process to save and end."""
        if self.process is not None:
            self.process.terminate()

    def close(self) -> str:
        """Wait for the process, note its time, and return what it said went wrong."""
        if self.process is None:
            return ""
        self.process.wait()
        spent = self.trial.user_attrs.get("seconds", 0.0) + time.monotonic() - self.since
        self.trial.set_user_attr("seconds", round(spent, 1))
        return self.errors_file.read_text(errors="replace").strip()


def environment(slot: int, parallel: int, device: str) -> dict[str, str]:
    """Return the variables for one of several processes: its share of the cores, a GPU of its own.

    OMP_NUM_THREADS is left as it is where it is set. XPU and MPS devices are shared.
    """
    environ = dict(os.environ)
    if parallel > 1:
        import torch

        environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // parallel)))
        seen = environ.get("CUDA_VISIBLE_DEVICES") or ",".join(
            map(str, range(torch.cuda.device_count()))
        )
        gpus = seen.split(",")
        if device in ("auto", "cuda") and len(gpus) > 1:
            environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environ
