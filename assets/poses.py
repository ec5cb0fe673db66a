"""Skeletons, from which the images are generated (paper 3.1)."""

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
    """COCO-17 skeletons of one to eight people, without pixels of a source image.

    The pose id also determines the split of everything derived from it.
    """
    yield from stages.make(context)
