"""Manual labels for the box detector (paper 3.1)."""

import dagster as dg

from assets.checks.labels import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="annotation",
    kinds={"coco"},
    owner="data",
    paper="3.1",
    suites=SUITES,
)
def labels(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Head boxes for a subset of the images, as COCO files.

    In the demo the renderer's ground truth replaces the annotator.
    """
    yield from stages.make(context)
