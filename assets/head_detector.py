"""The box detector for the annotation (paper 3.1)."""

import dagster as dg

from assets.checks.head_detector import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="annotation",
    kinds={"pytorch", "transformers"},
    owner="models",
    paper="3.1",
    suites=SUITES,
)
def head_detector(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """RT-DETR trained on the head boxes of the stage `labels`."""
    yield from stages.make(context)
