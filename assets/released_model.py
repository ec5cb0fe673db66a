"""The one-pass detector trained on the labels of the published release."""

import dagster as dg

from assets.checks.released_model import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="release",
    kinds={"pytorch", "lightning"},
    owner="models",
    paper="4",
    suites=SUITES,
)
def released_model(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """The one-pass detector trained on the labels of the published release."""
    yield from stages.make(context)
