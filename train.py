"""Train a model from a config, or continue a run.

python train.py -c digits.yaml
python train.py -c digits.yaml --lr 0.01 trainer.epochs=5
python train.py -r saved/digits
python train.py --list models
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from base.config import Config
    from trainer.run import Start

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def command(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Changes to the config: optimizer.args.lr=0.1"
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="A config, as given or below configs/.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("-r", "--resume", help="A run, a folder of runs, or a checkpoint."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("-d", "--device", help="auto, cpu, cuda, cuda:N, mps or xpu.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="Start the run of this name, or continue it.")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Short for optimizer.args.lr.")] = None,
    bs: Annotated[
        int | None, typer.Option("--bs", help="Short for data_loader.args.batch_size.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Report all mistakes, or try one batch; train nothing.")
    ] = False,
    list_names: Annotated[
        bool, typer.Option("--list", help="Print what can be named: --list [SECTION]...")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Train a model from a config (-c), or continue a run (-r)."""
    from base.errors import UsageError, exit_on_user_error

    changes = list(overrides or [])
    short_forms = {"device": device, "optimizer.args.lr": lr, "data_loader.args.batch_size": bs}
    with exit_on_user_error(debug=debug):
        if list_names:
            from trainer.listing import print_names

            print_names(changes)
            return
        changes += [f"{key}={value}" for key, value in short_forms.items() if value is not None]
        if (config is None) == (resume is None):
            raise UsageError(
                "expected either -c CONFIG for a new run or -r RUN to continue one; a new run from "
                "old weights is -c CONFIG model.weights=CHECKPOINT"
            )
        if resume is not None and run_id is not None:
            raise UsageError("-r names the run to continue; --run-id goes with -c")

        from trainer.run import start_from_checkpoint, start_from_config

        if resume is not None:
            loaded, start = start_from_checkpoint(resume, changes)
        else:
            loaded, start = start_from_config(config, changes, run_id)
        if check:
            from trainer.checking import check_config

            check_config(loaded)
        else:
            main(loaded, start)


def main(config: "Config", start: "Start | None" = None) -> dict[str, Any]:
    """Assemble a run from its config, train it to the end, and return its summary."""
    from base import distributed
    from base.device import seed_everything, select_device, set_deterministic
    from base.registry import TRAINERS
    from base.sample_rng import mix
    from logger import setup_logging
    from trainer import parts
    from trainer.data import build_data
    from trainer.run import Start, announce, open_run

    start = start or Start()
    setup_logging(None, verbosity=config.logger.verbosity, is_main=distributed.is_main())
    if (summary := start.finished_summary(config)) is not None:
        return announce(start.run, summary, finished_before=True)

    device = select_device(config.device)
    set_deterministic(config.trainer.deterministic)
    seed_everything(config.seed)
    with distributed.process_group(device):
        data_loader, valid_data_loader = build_data(config, device)
        model = parts.build_model(config, device)
        loss = parts.build_loss(config, device)
        optimizer = parts.build_optimizer(config, model, loss)
        lr_scheduler = parts.build_lr_scheduler(config, optimizer, data_loader)
        seed_everything(mix(config.seed, distributed.rank()))  # dropout differs between ranks
        trainer = parts.build_part(
            config, "trainer", config.trainer, TRAINERS,
            model=model, loss=loss, metrics=parts.build_metrics(config),
            optimizer=optimizer, lr_scheduler=lr_scheduler,
            data_loader=data_loader, valid_data_loader=valid_data_loader,
            callbacks=parts.build_callbacks(config), config=config, device=device,
        )  # fmt: skip
        if start.state is not None:
            trainer.load_state_dict(start.state)
        with open_run(config, start) as (run, logger, checkpoints):
            logger.log_config(config.to_yaml())
            logger.log_model(model, data_loader.peek(device))
            summary = trainer.fit(logger=logger, checkpoints=checkpoints)
            logger.finish(summary, config.model_dump())
        return announce(run, summary)


if __name__ == "__main__":
    app()
