"""The gate of the benchmark."""

from __future__ import annotations

from assets.checks.bounded import Statistics, benchmark_gate, bounded, only_told
from assets.checks.rules import whole_suite
from assets.checks.suite import Suite


def benchmark_suite(stage: str, gate: Statistics) -> Suite:
    """Return the gate of a benchmark.

    Args:
        stage: the stage that measures it.
        gate: computes the values that are bounded.
    """
    return whole_suite(
        f"{stage}_gate",
        bounded(
            "finds_heads",
            "The detectors find held-out heads, and no more than on validation images.",
            "benchmark",
            gate,
            "ap50",
            "over_validation",
        ),
        bounded(
            "beats_frontal",
            "Rotations and vertices are better than always frontal, and not suspiciously exact.",
            "benchmark",
            gate,
            "rotation_gain",
            "nme_gain",
        ),
        bounded(
            "flip_is_another_answer",
            "Averaging over the mirror image changes the metrics.",
            "benchmark",
            gate,
            "flip_differs",
        ),
        bounded(
            "all_test_images",
            "All images of the test split were measured.",
            "benchmark",
            gate,
            "test_images",
        ),
        bounded(
            "metrics_are_numbers",
            "Every metric is a number.",
            "benchmark",
            gate,
            "nan_fraction",
        ),
        only_told("benchmark", gate),
        sharded=False,
    )


SUITES = (benchmark_suite("benchmark", benchmark_gate),)
