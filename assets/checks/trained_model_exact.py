"""The gate of the one-pass detector that was trained on ground truth."""

from __future__ import annotations

from assets.checks.trained_model import training_suite

SUITES = (training_suite("trained_model_exact"),)
