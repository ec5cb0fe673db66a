"""Figures on held-out images with exact truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.evaluation.stage import BenchmarkConfig
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace


@stage_asset(
    config="ml.evaluation.stage:BenchmarkConfig",
    group="evaluation",
    kinds={"pytorch"},
)
def benchmark(ws: Workspace, config: BenchmarkConfig) -> StageReport:
    """AP50, NME, rotation errors and misses of both models, beside trivial baselines."""
    from ml.evaluation.stage import run
    from ml.training.determinism import prepare_torch

    prepare_torch(ws, "benchmark")
    return run(ws, config)
