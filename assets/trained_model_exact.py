"""The same detector, trained on exact ground truth."""

import dagster as dg

from assets.checks.trained_model_exact import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="detector",
    kinds={"pytorch", "lightning"},
    owner="models",
    paper="4",
    suites=SUITES,
)
def trained_model_exact(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """The upper bound: `trained_model`, with the renderer's ground truth for pseudo-labels."""
    yield from stages.make(context)
