"""Collectors, one quantity a file: what a trained model's loss looks like around it, in numbers with units."""
