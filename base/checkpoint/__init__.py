"""State to disk and back: atomic, verified, retained."""
