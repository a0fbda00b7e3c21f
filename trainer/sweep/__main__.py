"""Search for better settings of a config with Optuna.

python -m trainer.sweep -c digits.yaml sweeps/digits.yaml
python -m trainer.sweep -c digits.yaml sweeps/digits.yaml --run-id NAME trainer.epochs=5

The second continues the sweep NAME, or joins in while it runs: start it several times for as many
trials at once, with OMP_NUM_THREADS=1 or -d cuda:1 to share a machine.
"""

from pathlib import Path
from typing import Annotated

from typer import Argument

from trainer import command


@command.make_app
def app(
    sweep: Annotated[Path, Argument(help="A sweep file, as given or below configs/.")],
    config: command.ConfigFile,
    overrides: command.Overrides = None,
    run_id: command.RunId = None,
    device: command.Device = None,
    debug: command.Debug = False,
) -> None:
    """Search for better settings of a config with Optuna."""
    with command.single_process(debug=debug):
        from trainer.sweep.sweep import run_sweep

        run_sweep(config, sweep, run_id, command.with_short_options(overrides, device))


if __name__ == "__main__":
    app()
