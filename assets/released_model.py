"""The detector trained on the published release's labels."""

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
    """The detector trained on the published release's labels."""
    yield from stages.make(context)
