"""Pseudo-labels for every image (paper 3.1)."""

import dagster as dg

from assets.checks.annotations import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset
from ml.records.tables import ANNOTATED_IMAGES, HEADS


@stage_asset(
    group="annotation",
    kinds={"pytorch"},
    owner="data",
    paper="3.1",
    suites=SUITES,
    tables=(
        HEADS,
        ANNOTATED_IMAGES,
    ),
    taken_over={"images": ["sample_id", "split"]},
)
def annotations(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Boxes of the box detector, FLAME parameters of the regressor (not for small heads)."""
    yield from stages.make(context)
