"""Search over the settings of a config with Optuna."""
