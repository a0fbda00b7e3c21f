"""Draw the learning rate of a run without running it."""
