"""Write a run's model for other programs.

python -m trainer.export saved/NAME --format onnx
python -m trainer.export saved/NAME --format safetensors --output model.safetensors
"""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from trainer import command

Format = Literal["onnx", "torch_export", "safetensors"]


@command.make_app
def app(
    run: command.Run,
    format: Annotated[Format, Option(help="How to write it.")],
    overrides: command.Overrides = None,
    output: Annotated[Path | None, Option(help="The file to write.")] = None,
    debug: command.Debug = False,
) -> None:
    """Write a run's model for other programs."""
    with command.single_process(debug=debug):
        from trainer.export.export import export_model
        from trainer.resume import find_trained

        path, state, config = find_trained(run, overrides or [])
        export_model(config, path, state, format, output)


if __name__ == "__main__":
    app()
