"""Train a model from a config, or continue a run.

python train.py -c digits.yaml
python train.py -c digits.yaml --lr 0.01 trainer.epochs=5
python train.py -c digits.yaml --folds 5
python train.py -c digits.yaml --sweep sweep.yaml
python train.py -c digits.yaml --find-lr
python train.py -c digits.yaml --overfit 200
python train.py -r saved/digits
python train.py --list models
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

if TYPE_CHECKING:
    import torch

    from base.config.schema import Config
    from trainer import Trainer
    from trainer.resume import Start

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def command(
    overrides: Annotated[
        list[str] | None,
        Argument(metavar="KEY=VALUE", help="Changes to the config: optimizer.args.lr=0.1"),
    ] = None,
    config: Annotated[
        Path | None, Option("-c", "--config", help="A config, as given or below configs/.")
    ] = None,
    resume: Annotated[
        Path | None, Option("-r", "--resume", help="A run, a folder of runs, a checkpoint.")
    ] = None,
    device: Annotated[
        str | None, Option("-d", "--device", help="auto, cpu, cuda, cuda:N, mps or xpu.")
    ] = None,
    run_id: Annotated[
        str | None, Option("--run-id", help="Start the run of this name, or continue it.")
    ] = None,
    lr: Annotated[float | None, Option("--lr", help="Short for optimizer.args.lr.")] = None,
    bs: Annotated[int | None, Option("--bs", help="Sets the loader's batch_size.")] = None,
    folds: Annotated[int | None, Option("--folds", help="Cross-validate on K folds.")] = None,
    sweep: Annotated[Path | None, Option("--sweep", help="Search as this file says.")] = None,
    find_lr: Annotated[bool, Option("--find-lr", help="Suggest a learning rate.")] = False,
    overfit: Annotated[int | None, Option("--overfit", help="Learn one batch in N steps.")] = None,
    check: Annotated[bool, Option("--check", help="Try one batch only.")] = False,
    plot_lr: Annotated[bool, Option("--plot-lr", help="Draw the learning rate.")] = False,
    list_names: Annotated[bool, Option("--list", help="--list [SECTION]...")] = False,
    replay: Annotated[
        Path | None, Option("--replay", help="Run the step again at which a run diverged.")
    ] = None,
    debug: Annotated[bool, Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Train a model from a config (-c), or continue a run (-r)."""
    from base.errors import exit_on_user_error

    short_forms = {"device": device, "optimizer.args.lr": lr, "data_loader.args.batch_size": bs}
    given = [f"{key}={value}" for key, value in short_forms.items() if value is not None]
    changes = [*(overrides or []), *given]
    modes = {"--folds": folds, "--sweep": sweep, "--find-lr": find_lr, "--overfit": overfit}
    modes |= {"--check": check, "--plot-lr": plot_lr, "--list": list_names, "--replay": replay}
    with exit_on_user_error(debug=debug):
        run_mode(modes, changes, config=config, resume=resume, run_id=run_id)


def run_mode(
    modes: dict[str, Any],
    changes: list[str],
    *,
    config: Path | None,
    resume: Path | None,
    run_id: str | None,
) -> None:
    """Do the one thing of `modes` that was asked for, and train where none was.

    Raises:
        UsageError: several were asked for, or something that does not go with it.
    """
    from trainer.resume import check_together, find_start

    mode = check_together(modes, {"-c": config, "-r": resume, "--run-id": run_id})
    if mode == "--list":
        return list_registered(changes)
    if mode == "--replay":
        return run_again(modes[mode], changes)
    if mode == "--folds":
        return cross_validate(config, modes[mode], run_id, changes)
    if mode == "--sweep":
        return search(config, modes[mode], run_id, changes)
    found, start = find_start(config, resume, run_id, changes)
    if mode == "--plot-lr":
        return draw_lr(found)
    if mode is not None:
        return try_out(found, mode, modes[mode])
    main(found, start)


def cross_validate(config: Path, num_folds: int, run_id: str | None, overrides: list[str]) -> None:
    """Train a config with each fold of its data held back in turn."""
    from trainer.folds.folds import train_folds

    train_folds(config, num_folds, run_id, overrides, train=main)


def search(config: Path, sweep: Path, run_id: str | None, overrides: list[str]) -> None:
    """Train a config with many settings, each in a process and a run of its own."""
    from trainer.sweep.sweep import run_sweep

    run_sweep(config, sweep, run_id, overrides)


def list_registered(sections: list[str]) -> None:
    """Print what a config can name in some sections, or in all."""
    from trainer.listing import print_names

    print_names(sections)


def draw_lr(config: "Config") -> None:
    """Draw the learning rates of a run into a file here, and print its path."""
    from logger import setup_logging
    from trainer.plot_lr.plot_lr import plot_lr

    setup_logging(None)
    plot_lr(config)


def try_out(config: "Config", mode: str, num_steps: int) -> None:
    """Build every part and learn something of it in a few steps; no run is made."""
    from base.runtime.device import select_device
    from logger import setup_logging

    setup_logging(None)
    trainer = assemble(config, select_device(config.device))
    if mode == "--find-lr":
        from trainer.find_lr.find_lr import find_lr

        find_lr(trainer)
    elif mode == "--overfit":
        from trainer.overfit.overfit import overfit

        overfit(trainer, num_steps)
    else:
        from trainer.dry_run import print_sheet

        print_sheet(trainer)


def run_again(path: Path, overrides: list[str]) -> None:
    """Run the step that a diverged run kept, and print what first was not finite."""
    from base.runtime.device import select_device
    from trainer.replay.replay import read_failure, replay
    from trainer.resume import stored_config

    state = read_failure(path)
    config = stored_config(path, state, None, overrides)
    print(replay(assemble(config, select_device(config.device)), state))


def main(config: "Config", start: "Start | None" = None) -> dict[str, Any]:
    """Train a config from its start to the end, and return the summary of the run."""
    from base.runtime import distributed
    from base.runtime.device import select_device
    from logger import setup_logging
    from trainer.resume import Start
    from trainer.run import announce, open_run

    start = start or Start()
    setup_logging(None, verbosity=config.logger.verbosity, is_main=distributed.is_main())
    if (summary := start.finished_summary(config)) is not None:
        return announce(start.run, summary, config, finished_before=True)
    device = select_device(config.device)
    with distributed.process_group(device):
        trainer = assemble(config, device, resumed=start.state is not None)
        if start.state is not None:
            trainer.load_state_dict(start.state)
        with open_run(config, start) as (run, logger, checkpoints):
            logger.log_config(config.to_yaml())
            if run is not None and start.state is None and config.logger.tensorboard:
                logger.log_model(trainer.network, trainer.data_loader.peek(device))
            summary = trainer.fit(logger=logger, checkpoints=checkpoints)
            logger.finish(summary, config.model_dump())
        return announce(run, summary, config)


def assemble(config: "Config", device: "torch.device", *, resumed: bool = False) -> "Trainer":
    """Build every part that a config names, and the trainer of them."""
    from base.data.sample_rng import derive_seed
    from base.registry import TRAINERS
    from base.runtime import distributed
    from base.runtime.device import seed_everything, set_deterministic
    from trainer import parts
    from trainer.data import build_data

    set_deterministic(config.trainer.deterministic)
    seed_everything(config.seed)
    data_loader, valid_data_loader = build_data(config, device)
    model = parts.build_model(config, device, load_weights=not resumed)
    loss = parts.build_loss(config, device)
    optimizer = parts.build_optimizer(config, model, loss)
    trainer = parts.build_part(
        config, ("trainer",), config.trainer, TRAINERS,
        model=model,
        loss=loss,
        metrics=parts.build_metrics(config),
        optimizer=optimizer,
        lr_scheduler=parts.build_lr_scheduler(config, optimizer, data_loader),
        data_loader=data_loader,
        valid_data_loader=valid_data_loader,
        callbacks=parts.build_callbacks(config),
        config=config,
        device=device,
    )  # fmt: skip
    seed_everything(derive_seed(config.seed, distributed.rank()))  # dropout differs between ranks
    return trainer


if __name__ == "__main__":
    app()
