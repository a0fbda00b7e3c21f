"""Names to things, signatures to checked arguments, nodes of a config to objects."""
