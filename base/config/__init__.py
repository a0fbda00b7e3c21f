"""Config files: text to values with places, layers merged, every issue found at once."""
