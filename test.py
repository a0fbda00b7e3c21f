"""Evaluate a trained model on the test data of its config.

python test.py -r saved/NAME
python test.py -r saved/NAME/RUN/checkpoints/model_best.pth
python test.py -r saved/NAME test_dataset.args.train=true
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from trainer import command

if TYPE_CHECKING:
    from base.config.schema import Config


def run(
    checkpoint: Annotated[
        Path, Option("-r", "--resume", help="A run, a folder of runs (its newest), a checkpoint.")
    ],
    overrides: command.Overrides = None,
    device: command.Device = None,
    debug: command.Debug = False,
) -> None:
    """Find a run's best model, or one checkpoint, and evaluate it."""
    with command.single_process(debug=debug):
        from trainer.resume import find_trained

        path, state, config = find_trained(
            checkpoint, command.with_short_options(overrides, device)
        )
        main(config, path, state)


def main(config: "Config", path: Path, state: dict[str, Any]) -> dict[str, float]:
    """Rebuild the model of a checkpoint, evaluate it, write the reports, return the metrics."""
    from contextlib import closing

    from base.runtime.device import select_device
    from logger import setup_logging
    from logger.run_logger import open_evaluation_logger
    from trainer.assembly import load_for_evaluation
    from trainer.evaluation import evaluate
    from trainer.run import folder_beside

    log = setup_logging(None, verbosity=config.logger.verbosity)
    if config.trainer.limit_batches:
        log.warning("trainer.limit_batches=%d leaves test data out", config.trainer.limit_batches)
    trainer = load_for_evaluation(config, state, select_device(config.device))
    folder = folder_beside(path, "test")
    earlier = {file: file.stat().st_mtime_ns for file in folder.glob("*")}
    with closing(open_evaluation_logger(config)) as logger:
        metrics = evaluate(trainer, folder, logger)
    log.info("%s, epoch %d", path, state["epoch"])
    log.info("  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    for file in sorted(folder.iterdir()):
        if file.stat().st_mtime_ns != earlier.get(file):
            log.info("%s", file)
    return metrics


app = command.make_app(run, cls=command.ScriptCommand)

if __name__ == "__main__":
    app()
