"""Draw the learning rates of a run, without the run.

python -m trainer.plot_lr -c digits.yaml
python -m trainer.plot_lr -c digits.yaml trainer.epochs=50
"""

from trainer import command


@command.make_app
def app(
    config: command.ConfigFile,
    overrides: command.Overrides = None,
    lr: command.LearningRate = None,
    bs: command.BatchSize = None,
    debug: command.Debug = False,
) -> None:
    """Draw the learning rates of a run, without the run."""
    with command.single_process(debug=debug):
        from base.config.check import load_config
        from trainer.plot_lr.plot_lr import plot_lr
        from trainer.resume import find_config

        changes = command.with_short_options(overrides, lr=lr, bs=bs)
        plot_lr(load_config(find_config(config), changes))


if __name__ == "__main__":
    app()
