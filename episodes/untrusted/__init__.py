"""Readers of bytes that a stranger may have written: pickles, archives, pictures, tables, JSON, YAML, torch files."""
