"""Cross-validate a config on K folds."""
