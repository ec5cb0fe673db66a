"""The regressor of FLAME parameters (paper 3.1)."""

import dagster as dg

from assets.checks.flame_regressor import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="annotation",
    kinds={"pytorch"},
    owner="models",
    paper="3.1",
    suites=SUITES,
)
def flame_regressor(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Predicts 413 FLAME parameters from a head crop; replaces the paper's DAD-3DNet."""
    yield from stages.make(context)
