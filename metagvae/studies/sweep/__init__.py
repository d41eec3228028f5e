"""Sweeps: the search space, the trials, the results."""
