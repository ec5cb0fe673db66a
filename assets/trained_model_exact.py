"""The one-pass detector trained on ground truth."""

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
    """Upper bound of `trained_model`: the renderer's ground truth replaces the pseudo-labels."""
    yield from stages.make(context)
