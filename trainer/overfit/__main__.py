"""Check that the model can learn a single batch.

python -m trainer.overfit -c digits.yaml
python -m trainer.overfit -c digits.yaml --steps 500 --lr 0.01
"""

from typing import Annotated

from typer import Option

from trainer import command


@command.make_app
def app(
    config: command.ConfigFile,
    overrides: command.Overrides = None,
    steps: Annotated[int, Option(help="At most so many steps.")] = 200,
    device: command.Device = None,
    lr: command.LearningRate = None,
    bs: command.BatchSize = None,
    debug: command.Debug = False,
) -> None:
    """Check that the model can learn a single batch."""
    with command.single_process(debug=debug):
        from base.config.check import load_config
        from base.runtime.device import select_device
        from trainer.assembly import build_trainer
        from trainer.overfit.overfit import overfit
        from trainer.resume import find_config

        changes = command.with_short_options(overrides, device, lr, bs)
        loaded = load_config(find_config(config), changes)
        overfit(build_trainer(loaded, select_device(loaded.device)), steps)


if __name__ == "__main__":
    app()
