"""Figures on held-out images with exact truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.benchmark import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.benchmark import BenchmarkConfig


@stage_asset(
    config="ml.stages.benchmark:BenchmarkConfig",
    group="evaluation",
    kinds={"pytorch"},
    suites=SUITES,
)
def benchmark(ws: Workspace, config: BenchmarkConfig) -> StageReport:
    """AP50, NME, rotation errors and misses of both models, beside trivial baselines."""
    from ml.stages.benchmark import run

    return run(ws, config)
