"""Ways to infer a posterior, one file each. A new one is an `Inference` subclass under ``@INFERENCES.register``."""

from metagvae.vae.inference.amortised import Amortised
from metagvae.vae.inference.base import INFERENCES, Inference
from metagvae.vae.inference.short_run import ShortRun

__all__ = ["INFERENCES", "Amortised", "Inference", "ShortRun"]
