"""The imported release as a dataset, and a list of missing parts of the copy."""

import dagster as dg

from assets.checks.released_dataset import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="release",
    kinds={"python"},
    owner="data",
    paper="3",
    suites=SUITES,
)
def released_dataset(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """The imported release as a dataset, and a list of missing parts of the copy."""
    yield from stages.make(context)
