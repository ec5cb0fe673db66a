"""Benchmark of the detector trained on the release, on held-out images."""

import dagster as dg

from assets.checks.released_benchmark import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="release",
    kinds={"pytorch"},
    owner="models",
    paper="5",
    suites=SUITES,
)
def released_benchmark(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Benchmark of the detector trained on the release, on held-out images."""
    yield from stages.make(context)
