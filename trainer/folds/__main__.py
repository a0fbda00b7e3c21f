"""Cross-validate a config on the folds of its data.

python -m trainer.folds -c digits.yaml
python -m trainer.folds -c digits.yaml --folds 10 --run-id cv
"""

from typing import Annotated

from typer import Option

from trainer import command


@command.make_app
def app(
    config: command.ConfigFile,
    overrides: command.Overrides = None,
    folds: Annotated[int, Option(min=2, help="The number of folds.")] = 5,
    run_id: command.RunId = None,
    device: command.Device = None,
    lr: command.LearningRate = None,
    bs: command.BatchSize = None,
    debug: command.Debug = False,
) -> None:
    """Cross-validate a config on the folds of its data."""
    with command.single_process(debug=debug):
        from trainer.folds.folds import train_folds

        changes = command.with_short_options(overrides, device, lr, bs)
        train_folds(config, folds, run_id, changes)


if __name__ == "__main__":
    app()
