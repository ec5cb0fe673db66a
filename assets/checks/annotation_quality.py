"""The gate of the pseudo-labels: nothing is trained on bad ones."""

from __future__ import annotations

from assets.checks.bounded import bounded, only_told
from assets.checks.gates import ANNOTATION_QUALITY
from assets.checks.rules import whole_suite

ANNOTATION_QUALITY_GATE = whole_suite(
    "annotation_quality_gate",
    bounded(
        "finds_heads",
        "The labels are of true heads, of most of them, and not suspiciously all.",
        "annotation_quality",
        ANNOTATION_QUALITY.judged,
        "recall",
        "precision",
        "matched",
    ),
    bounded(
        "beats_frontal",
        "Rotations and vertices are better than always frontal, and not suspiciously exact.",
        "annotation_quality",
        ANNOTATION_QUALITY.judged,
        "rotation_gain",
        "nme_percent",
        "yaw_correlation",
    ),
    bounded(
        "unbiased",
        "Rotation and position errors of the labels have no systematic bias.",
        "annotation_quality",
        ANNOTATION_QUALITY.judged,
        "turn_deg",
        "shift",
    ),
    bounded(
        "all_test_images",
        "All images of the test split were measured.",
        "annotation_quality",
        ANNOTATION_QUALITY.judged,
        "test_images",
    ),
    bounded(
        "metrics_are_numbers",
        "Every metric is a number.",
        "annotation_quality",
        ANNOTATION_QUALITY.judged,
        "nan_fraction",
    ),
    only_told("annotation_quality", ANNOTATION_QUALITY.judged),
    ANNOTATION_QUALITY.enough_to_judge(),
    sharded=False,
)

SUITES = (ANNOTATION_QUALITY_GATE,)
