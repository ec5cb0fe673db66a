"""The gate of the head detector."""

from __future__ import annotations

from assets.checks.accounts import training_account
from assets.checks.bounded import bounded, only_told
from assets.checks.gates import HEAD_DETECTOR
from assets.checks.rules import whole_suite

HEAD_DETECTOR_GATE = whole_suite(
    "head_detector_gate",
    training_account("head_detector"),
    bounded(
        "finds_heads",
        "The detector finds held-out heads, and not suspiciously all.",
        "head_detector",
        HEAD_DETECTOR.judged,
        "ap50",
        "recall_max",
    ),
    bounded(
        "loss_fell",
        "The loss of training fell.",
        "head_detector",
        HEAD_DETECTOR.judged,
        "loss_ratio",
    ),
    bounded(
        "metrics_are_numbers",
        "Every metric is a number.",
        "head_detector",
        HEAD_DETECTOR.judged,
        "nan_fraction",
        "loss_nan",
    ),
    only_told("head_detector", HEAD_DETECTOR.judged),
    HEAD_DETECTOR.enough_to_judge(),
    sharded=False,
)

SUITES = (HEAD_DETECTOR_GATE,)
