"""Names in, trained things out: encoder folders, the Hub, runs, other code bases' weights, exports."""
