"""Try whether the model can overfit one batch."""
