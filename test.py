"""Evaluate a trained model on its test data, export it, or predict with it.

python test.py -r saved/digits
python test.py -r saved/digits/RUN/checkpoints/model_best.pth
python test.py -r saved/digits test_dataset.args.train=true
python test.py -r saved/digits --predict FILE_OR_FOLDER
python test.py -r saved/digits --export onnx
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

if TYPE_CHECKING:
    from base.config.schema import Config

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Format = Literal["onnx", "torch_export", "safetensors"]


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def command(
    checkpoint: Annotated[
        Path, Option("-r", "--resume", help="A run, a folder of runs (its newest), a checkpoint.")
    ],
    overrides: Annotated[
        list[str] | None, Argument(metavar="KEY=VALUE", help="Changes to the run's own config.")
    ] = None,
    device: Annotated[
        str | None, Option("-d", "--device", help="auto, cpu, cuda, cuda:N, mps or xpu.")
    ] = None,
    export: Annotated[Format | None, Option("--export", help="Write the model itself.")] = None,
    predict: Annotated[
        Path | None, Option("--predict", help="Predict images, a table or texts into a CSV file.")
    ] = None,
    output: Annotated[
        Path | None, Option("--output", help="What --export or --predict writes.")
    ] = None,
    debug: Annotated[bool, Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Evaluate a run's best model, or one checkpoint, on the test data of its config."""
    from base.errors import exit_on_user_error

    changes = list(overrides or []) + ([f"device={device}"] if device else [])
    with exit_on_user_error(debug=debug):
        use(checkpoint, changes, export=export, predict=predict, output=output)


def use(
    checkpoint: Path,
    changes: list[str],
    *,
    export: Format | None,
    predict: Path | None,
    output: Path | None,
) -> None:
    """Do with a trained model the one thing that was asked for, or evaluate it.

    Raises:
        UsageError: several were asked for, or something that does not go with it.
    """
    from base.errors import UsageError
    from logger import setup_logging
    from trainer.resume import check_alone, check_together, find_trained

    check_alone("test.py")
    mode = check_together({"--export": export, "--predict": predict}, {})
    if output is not None and mode is None:
        raise UsageError("--output names what --export or --predict writes; neither is given")
    path, state, config = find_trained(checkpoint, changes)
    setup_logging(None, verbosity=config.logger.verbosity)
    if mode == "--export":
        from trainer.export.export import export_model

        export_model(config, path, state, export, output)
    elif mode == "--predict":
        from trainer.predict.predict import predict_files

        predict_files(config, path, state, predict, output)
    else:
        main(config, path, state)


def main(config: "Config", path: Path, state: dict) -> dict[str, float]:
    """Rebuild the model of a checkpoint, evaluate it, write the reports, return the metrics."""
    from base.runtime.device import select_device
    from logger import setup_logging
    from trainer.evaluation import evaluate
    from trainer.run import folder_beside
    from trainer.trained import build_trained

    log = setup_logging(None, verbosity=config.logger.verbosity)
    if config.trainer.limit_batches:
        log.warning("trainer.limit_batches=%d leaves test data out", config.trainer.limit_batches)
    trainer = build_trained(config, state, select_device(config.device))
    folder = folder_beside(path, "test")
    metrics = evaluate(trainer, trainer.valid_data_loader, folder)
    log.info("%s, epoch %d", path, state["epoch"])
    log.info("  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    for file in sorted(folder.iterdir()):
        log.info("%s", file)
    return metrics


if __name__ == "__main__":
    app()
