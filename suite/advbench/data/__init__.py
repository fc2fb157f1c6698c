"""Data sources, one a file: where the examples of a task come from."""
