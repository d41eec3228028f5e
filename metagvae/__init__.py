"""Few-shot meta-learning with guided variational autoencoders."""
