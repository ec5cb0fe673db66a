"""The gate of the benchmark on the imported release."""

from __future__ import annotations

from assets.checks.benchmark import benchmark_suite
from assets.checks.gates import RELEASED_BENCHMARK

SUITES = (benchmark_suite("released_benchmark", RELEASED_BENCHMARK),)
