"""Run the step of a diverged run again, to explain it.

python -m trainer.replay saved/NAME/RUN/failure.pth
"""

from pathlib import Path
from typing import Annotated

from typer import Argument

from trainer import command


@command.make_app
def app(
    file: Annotated[Path, Argument(help="The failure.pth that a diverged run has kept.")],
    overrides: command.Overrides = None,
    device: command.Device = None,
    debug: command.Debug = False,
) -> None:
    """Run the step of a diverged run again, to explain it."""
    with command.single_process(debug=debug):
        from base.runtime.device import select_device
        from trainer.assembly import build_trainer
        from trainer.replay.replay import read_failure, replay
        from trainer.resume import stored_config

        state = read_failure(file)
        changes = command.with_short_options(overrides, device)
        config = stored_config(file, state, changes)
        print(replay(build_trainer(config, select_device(config.device)), state))


if __name__ == "__main__":
    app()
