"""Metrics on held-out images with exact ground truth (paper 5)."""

import dagster as dg

from assets.checks.benchmark import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="detector",
    kinds={"pytorch"},
    owner="models",
    paper="5",
    max_age_days=30,
    suites=SUITES,
)
def benchmark(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """AP50, NME, rotation errors and failure rates of trained models and simple baselines."""
    yield from stages.make(context)
