"""The detector of the release on images that it was not trained on."""

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
    """The detector of the release on images that it was not trained on."""
    yield from stages.make(context)
