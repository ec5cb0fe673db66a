"""The gate of the benchmark."""

from __future__ import annotations

from assets.checks.bounded import bounded, only_told
from assets.checks.gates import BENCHMARK, Gate
from assets.checks.rules import whole_suite
from assets.checks.suite import Suite


def benchmark_suite(stage: str, gate: Gate) -> Suite:
    """Return the gate of a benchmark.

    Args:
        stage: the stage that measures it.
        gate: computes the values that are bounded.
    """
    return whole_suite(
        f"{stage}_gate",
        bounded(
            "finds_heads",
            "The detectors find held-out heads, and not suspiciously all.",
            gate.group,
            gate.judged,
            "ap50",
        ),
        bounded(
            "no_leak",
            "AP50 on test images is not suspiciously above that on validation images.",
            gate.group,
            gate.judged,
            "over_validation",
        ),
        bounded(
            "beats_frontal",
            "Rotations and vertices are better than always frontal, and not suspiciously exact.",
            gate.group,
            gate.judged,
            "rotation_gain",
            "nme_gain",
        ),
        bounded(
            "flip_is_another_answer",
            "Averaging over the mirror image changes the metrics.",
            gate.group,
            gate.judged,
            "flip_differs",
        ),
        bounded(
            "all_test_images",
            "All images of the test split were measured.",
            gate.group,
            gate.judged,
            "test_images",
        ),
        bounded(
            "metrics_are_numbers",
            "Every metric is a number.",
            gate.group,
            gate.judged,
            "nan_fraction",
        ),
        only_told(gate.group, gate.judged),
        gate.enough_to_judge(),
        sharded=False,
    )


SUITES = (benchmark_suite("benchmark", BENCHMARK),)
