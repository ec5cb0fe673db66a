"""Training data for the FLAME regressor."""

import dagster as dg

from assets.checks.crops import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset
from ml.records.tables import CROPS


@stage_asset(
    group="annotation",
    kinds={"numba"},
    owner="data",
    tables=(CROPS,),
    suites=SUITES,
)
def crops(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Single rendered heads with exact FLAME parameters."""
    yield from stages.make(context)
