"""Bridges to other packages. Importing this imports none of them."""

from metagvae.interop.easyfsl import EasyfslLearner, as_easyfsl_backbone
from metagvae.interop.learn2learn import as_learn2learn_module, batches_from_taskset, taskset

__all__ = ["EasyfslLearner", "as_easyfsl_backbone", "as_learn2learn_module", "batches_from_taskset", "taskset"]
