"""Priors of the latent, one file each. A new one is a file with a `Prior` subclass under ``@PRIORS.register``."""

from metagvae.vae.priors.base import PRIORS, Labels, Prior
from metagvae.vae.priors.causal_flow import CausalFlow
from metagvae.vae.priors.ex_post_mixture import ExPostMixture
from metagvae.vae.priors.standard_normal import StandardNormal
from metagvae.vae.priors.uniform_codes import UniformCodes

__all__ = ["PRIORS", "CausalFlow", "ExPostMixture", "Labels", "Prior", "StandardNormal", "UniformCodes"]
