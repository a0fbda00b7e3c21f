"""What a run stands on: device, seeds, ranks, signals, guards, sums, the monitor."""
