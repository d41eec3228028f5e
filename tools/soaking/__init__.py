"""Disturbances of runs by tools/soak.py, one per file, and what is counted of each."""
