"""Names in, trained things out: encoder folders, the Hub, runs, other code bases' weights, exports."""

DEFAULT_ENCODER = "handwriting"  # of the classifier, the demo and `metagvae predict`: which errs least on plain input
