"""Run folders: config, metrics, states, signals, provenance."""
