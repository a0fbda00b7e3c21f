"""Suggest a learning rate: train with a rising one.

python -m trainer.find_lr -c digits.yaml
python -m trainer.find_lr -c digits.yaml --bs 256 optimizer.type=SGD
"""

from trainer import command


@command.make_app
def app(
    config: command.ConfigFile,
    overrides: command.Overrides = None,
    device: command.Device = None,
    bs: command.BatchSize = None,
    debug: command.Debug = False,
) -> None:
    """Suggest a learning rate: train with a rising one."""
    with command.single_process(debug=debug):
        from base.config.check import load_config
        from base.runtime.device import select_device
        from trainer.assembly import build_trainer
        from trainer.find_lr.find_lr import find_lr
        from trainer.resume import find_config

        changes = command.with_short_options(overrides, device, bs=bs)
        loaded = load_config(find_config(config), changes)
        find_lr(build_trainer(loaded, select_device(loaded.device)))


if __name__ == "__main__":
    app()
