"""Checks before a long run: a profile's models, files, sources, device and disk."""
