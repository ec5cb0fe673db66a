"""The gate of the benchmark."""

from __future__ import annotations

from assets.checks.bounded import benchmark_gate, bounded
from assets.checks.rules import whole_suite

BENCHMARK_GATE = whole_suite(
    "benchmark_gate",
    bounded(
        "finds_heads",
        "The detectors find held-out heads, and no more than on validation images.",
        "benchmark",
        benchmark_gate,
        "ap50",
        "over_validation",
    ),
    bounded(
        "beats_frontal",
        "Rotations and vertices are better than always frontal, and not suspiciously exact.",
        "benchmark",
        benchmark_gate,
        "rotation_gain",
        "nme_gain",
    ),
    bounded(
        "flip_is_another_answer",
        "Averaging over the mirror image changes the metrics.",
        "benchmark",
        benchmark_gate,
        "flip_differs",
    ),
    bounded(
        "all_test_images",
        "All images of the test split were measured.",
        "benchmark",
        benchmark_gate,
        "test_images",
    ),
    bounded(
        "figures_are_numbers",
        "Every metric is a number.",
        "benchmark",
        benchmark_gate,
        "nan_fraction",
    ),
    sharded=False,
)

SUITES = (BENCHMARK_GATE,)
