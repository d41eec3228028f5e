"""Configuration: the sections of a YAML file and how they are read."""
