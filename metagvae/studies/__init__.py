"""Measurements over several trained things: comparison, cross-validation, disentanglement, sweeps."""
