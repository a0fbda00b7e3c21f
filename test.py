"""Evaluate a trained model on its test data.

python test.py -r saved/digits
python test.py -r saved/digits/RUN/checkpoints/model_best.pth
python test.py -r saved/digits test_dataset.args.train=true
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from base.config import Config

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def command(
    checkpoint: Annotated[
        Path,
        typer.Option(
            "-r", "--resume", help="A run, a folder of runs (its newest), or a checkpoint."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to the run's own config."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("-d", "--device", help="auto, cpu, cuda, cuda:N, mps or xpu.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Evaluate a run's best model, or one checkpoint, on the test data of its config."""
    from base.errors import exit_on_user_error

    changes = list(overrides or []) + ([f"device={device}"] if device else [])
    with exit_on_user_error(debug=debug):
        from trainer.start import find_trained

        path, state, config = find_trained(checkpoint, changes)
        main(config, path, state)


def main(config: "Config", path: Path, state: dict) -> dict[str, float]:
    """Rebuild the model of a checkpoint, evaluate it, write the reports, return the metrics."""
    from base.device import seed_everything, select_device, set_deterministic
    from base.registry import TRAINERS
    from logger import setup_logging
    from trainer import parts
    from trainer.data import build_test_data
    from trainer.evaluation import evaluate
    from trainer.run import test_folder

    log = setup_logging(None, verbosity=config.logger.verbosity)
    if config.trainer.limit_batches:
        log.warning("trainer.limit_batches=%d leaves test data out", config.trainer.limit_batches)
    device = select_device(config.device)
    set_deterministic(config.trainer.deterministic)
    seed_everything(config.seed)
    loader = build_test_data(config, device)
    model = parts.build_model(config, device, load_weights=False)
    loss = parts.build_loss(config, device)
    trainer = parts.build_part(
        config, "trainer", config.trainer, TRAINERS,
        model=model, loss=loss, metrics=parts.build_metrics(config),
        optimizer=parts.build_optimizer(config, model, loss),
        data_loader=loader, valid_data_loader=loader, config=config, device=device,
    )  # fmt: skip
    trainer.load_model(state)
    folder = test_folder(path)
    metrics = evaluate(trainer, loader, folder)
    log.info("%s, epoch %d", path, state["epoch"])
    log.info("  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    for file in sorted(folder.iterdir()):
        log.info("%s", file)
    return metrics


if __name__ == "__main__":
    app()
