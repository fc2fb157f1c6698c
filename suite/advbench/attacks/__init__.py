"""Attacks, one a file: they propose candidates, `advbench.evaluate` alone decides what is broken."""
