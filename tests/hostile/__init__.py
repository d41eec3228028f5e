"""Hostile files, made from good ones, and every function that takes a file. `tools/fuzz.py` runs one on the other."""

from tests.hostile.cases import place_case, random_case, sample, write_crafted
from tests.hostile.entries import ENTRIES
from tests.hostile.samples import make_samples

__all__ = ["ENTRIES", "make_samples", "place_case", "random_case", "sample", "write_crafted"]
