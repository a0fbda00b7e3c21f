"""Ready callbacks, one file each; a config names them under `callbacks`."""
