"""Generative models: the GuidedVAE, decoders, the hierarchical model of the Neural Statistician."""
