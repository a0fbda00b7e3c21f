"""Config files: text to values with places, layers merged, every mistake found at once."""
