"""Curves, results and the best model of a run in Weights & Biases."""

import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal

from base.base_writer import BaseWriter, ResumedFrom
from base.checkpoint.checkpoints import BEST
from base.config.schema import Config
from base.errors import ConfigIssue, KeyPath
from base.registry import WRITERS
from logger.run_directory import RunDirectory

UPLOAD_SECONDS = 600  # to wait at the end, where wandb itself waits for ever; the rest is on disk


@WRITERS.register("wandb")
class WandbWriter(BaseWriter):
    """Logs a run to W&B; `wandb_run` is wandb's own object, for all that is not offered here.

    What its options leave open, the WANDB_* variables and wandb's settings files say; the project
    is the config's name where nobody says. The id is that of the run, so a continued run is the
    same one there; a new one replaces what had its id.

    wandb's own step only rises and nothing can be taken back, so after a rollback what is there
    already is not logged again (offline it is, with the same values). The charts' x is `step`, the
    optimizer's. A killed process loses up to 15 seconds of points that metrics.csv may have.

    Raises:
        RuntimeError: W&B is online and nobody is logged in; it is never asked for.
    """

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        *,
        run: RunDirectory,
        config: Mapping[str, Any],
        resume: ResumedFrom | None = None,
    ) -> None:
        import wandb

        settings = wandb.setup().settings
        mode = mode or settings.mode
        if mode not in ("offline", "dryrun", "disabled") and not wandb.login(prompt=False):
            raise RuntimeError("no API key: run `wandb login`, or set logger.wandb.mode=offline")
        self._run = run
        self.wandb_run = wandb.init(
            project=project or settings.project or config["name"],
            entity=entity,
            group=group,
            tags=tags,
            name=run.run_id,
            id=f"{config['name']}-{run.run_id}",
            resume="allow" if resume else None,
            mode=mode,
            dir=run.path.absolute(),  # its service may work in another folder
            config=dict(config),
            reinit="finish_previous",
            settings={"finish_timeout": settings.finish_timeout or UPLOAD_SECONDS},
        )
        self.wandb_run.define_metric("step", hidden=True)
        self.wandb_run.define_metric("*", step_metric="step")
        self._first_step = self.wandb_run.step

    @classmethod
    def check_config(cls, config: Config, path: KeyPath) -> Iterator[ConfigIssue]:
        """Yield an issue where wandb is not installed."""
        spec = find_spec("wandb")  # without an origin: the folder it leaves where it ran
        if spec is None or spec.origin is None:
            yield ConfigIssue(path, "wandb is not installed: pip install wandb; or set it false")

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        self._log({f"train/{name}": value for name, value in values.items()}, step, 2 * step)

    def log_epoch(self, row: Mapping[str, float | int]) -> None:
        step = int(row["step"])
        self._log({f"epoch/{name}": value for name, value in row.items()}, step, 2 * step + 1)

    def _log(self, values: Mapping[str, float], step: int, wandb_step: int) -> None:
        """Log under a step of wandb's own, so that no two logs become one row."""
        if wandb_step >= self._first_step:
            wandb_step = max(wandb_step, self.wandb_run.step)
            self.wandb_run.log({**values, "step": step}, step=wandb_step, commit=True)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Add the summary, and as an artifact the best checkpoint and the config it ran with."""
        import wandb

        self.wandb_run.summary.update(summary)
        if (best := self._run.checkpoints / BEST).exists():
            name = f"model-{self.wandb_run.id}"
            model = wandb.Artifact(name, type="model", metadata=dict(summary))
            model.add_file(str(best))
            model.add_file(str(self._run.config_file))
            self.wandb_run.log_artifact(model, aliases=["best"])

    def close(self) -> None:
        """Upload what is left; the run has failed there if this is called for an error."""
        import wandb

        try:
            self.wandb_run.finish(exit_code=int(sys.exception() is not None))
        except Exception:
            wandb.teardown()  # else it tries again as Python exits, and shows a traceback
            raise
