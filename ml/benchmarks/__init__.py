"""Public benchmarks: files as published, protocols by name, predictions of any model."""
