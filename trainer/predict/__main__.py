"""Predict files with a run's model, into a CSV file.

python -m trainer.predict saved/NAME FILE_OR_FOLDER
python -m trainer.predict saved/NAME images/ --output predictions.csv
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from trainer import command


@command.make_app
def app(
    run: command.Run,
    source: Annotated[Path, Argument(help="A file, or a folder of images.")],
    overrides: command.Overrides = None,
    device: command.Device = None,
    output: Annotated[Path | None, Option(help="The file to write.")] = None,
    debug: command.Debug = False,
) -> None:
    """Predict files with a run's model, into a CSV file."""
    with command.single_process(debug=debug):
        from trainer.predict.predict import predict_files
        from trainer.resume import find_trained

        changes = command.with_short_options(overrides, device)
        path, state, config = find_trained(run, changes)
        predict_files(config, path, state, source, output)


if __name__ == "__main__":
    app()
