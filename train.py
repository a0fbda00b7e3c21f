"""Train a model from a config, or continue a run.

python train.py -c digits.yaml
python train.py -c digits.yaml --lr 0.01 trainer.epochs=5
python train.py -c digits.yaml --check
python train.py -r saved/NAME
python train.py --list models
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from trainer import command

if TYPE_CHECKING:
    from base.config.schema import Config
    from trainer.resume import ResumePoint


def run(
    overrides: command.Overrides = None,
    config: Annotated[
        Path | None, Option("-c", "--config", help="A config, as given or below configs/.")
    ] = None,
    resume: Annotated[
        Path | None, Option("-r", "--resume", help="A run, a folder of runs, a checkpoint.")
    ] = None,
    device: command.Device = None,
    run_id: command.RunId = None,
    lr: command.LearningRate = None,
    bs: command.BatchSize = None,
    check: Annotated[bool, Option("--check", help="Try one batch only; no run is made.")] = False,
    list_names: Annotated[
        bool, Option("--list", help="Print what a config can name: --list [SECTION]...")
    ] = False,
    debug: command.Debug = False,
) -> None:
    """Do what was asked for: list names, try a config, or train."""
    from base.errors import UsageError, exit_on_user_error

    with exit_on_user_error(debug=debug):
        if list_names:
            from base.registry import print_names

            print_names(overrides or [])
            return

        from trainer.resume import find_start

        if check and resume:
            raise UsageError("--check tries a config: -c CONFIG")
        changes = command.with_short_options(overrides, device, lr, bs)
        loaded, resume_point = find_start(config, resume, run_id, changes)
        if not check:
            main(loaded, resume_point)
            return
        with command.single_process(debug=debug):
            try_out(loaded)


def try_out(config: "Config") -> None:
    """Build every part of a config, run a batch, and print what it shows; no run is made."""
    from base.runtime.device import select_device
    from trainer.assembly import build_trainer
    from trainer.dry_run import dry_run

    dry_run(build_trainer(config, select_device(config.device)))


def main(config: "Config", resume_point: "ResumePoint | None" = None) -> dict[str, Any]:
    """Train a config from its start to the end, and return the summary of the run."""
    from base.runtime import distributed
    from base.runtime.device import select_device
    from logger import setup_logging
    from trainer.assembly import build_trainer
    from trainer.resume import ResumePoint
    from trainer.run import announce, run_training

    resume_point = resume_point or ResumePoint()
    setup_logging(None, verbosity=config.logger.verbosity, is_main=distributed.is_main())
    if (summary := resume_point.finished_summary(config)) is not None:
        return announce(resume_point.run, summary, config)
    device = select_device(config.device)
    with distributed.process_group(device):
        trainer = build_trainer(config, device, state=resume_point.state)
        return run_training(trainer, resume_point)


app = command.make_app(run, cls=command.ScriptCommand)

if __name__ == "__main__":
    app()
