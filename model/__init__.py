"""Networks, losses and metrics of this project; a config names them by their own names."""
