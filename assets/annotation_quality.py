"""How good the pseudo-labels are."""

import dagster as dg

from assets.checks.annotation_quality import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="annotation",
    kinds={"pytorch"},
    owner="data",
    suites=SUITES,
)
def annotation_quality(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Pseudo-labels against exact ground truth: recall, precision, NME and rotation error."""
    yield from stages.make(context)
