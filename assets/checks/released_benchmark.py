"""The gate of the benchmark on the imported release."""

from __future__ import annotations

from assets.checks.benchmark import benchmark_suite
from assets.checks.bounded import released_benchmark_gate

SUITES = (benchmark_suite("released_benchmark", released_benchmark_gate),)
