"""The gate of the one-pass detector that was trained on the imported release."""

from __future__ import annotations

from assets.checks.trained_model import training_suite

SUITES = (training_suite("released_model"),)
