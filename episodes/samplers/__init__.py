"""Samplers: which images make episode i."""
