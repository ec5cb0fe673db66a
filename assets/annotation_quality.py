"""Accuracy of the pseudo-labels."""

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
    """Recall, precision, NME and rotation error of the pseudo-labels against ground truth."""
    yield from stages.make(context)
