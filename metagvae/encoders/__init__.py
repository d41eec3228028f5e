"""Pictures to features: backbones, the encoder, networks of other libraries, ensembles and controls."""
