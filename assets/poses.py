"""Skeletons: the start of every image (paper 3.1)."""

import dagster as dg

from assets.checks.poses import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset
from ml.records.tables import POSES


@stage_asset(
    group="generation",
    kinds={"numpy"},
    owner="data",
    paper="3.1",
    suites=SUITES,
    tables=(POSES,),
)
def poses(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """COCO-17 skeletons of one to eight people, without any pixel of a source image.

    The split of everything made later is fixed here, by the pose.
    """
    yield from stages.make(context)
