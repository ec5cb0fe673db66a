"""The one-pass detector (paper 4)."""

import dagster as dg

from assets.checks.trained_model import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="detector",
    kinds={"pytorch", "lightning"},
    owner="models",
    paper="4",
    suites=SUITES,
)
def trained_model(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Predicts boxes and FLAME parameters of all heads in one pass; trained on pseudo-labels."""
    yield from stages.make(context)
