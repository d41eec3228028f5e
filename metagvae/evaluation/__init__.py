"""Few-shot error with its intervals, disentanglement scores, linear probes."""
