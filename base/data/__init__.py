"""The order of samples, their random draws, the split, and batches of them."""
