"""Captions and prompts (paper 3.1)."""

import dagster as dg

from assets.checks.captions import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset
from ml.records.tables import CAPTIONS


@stage_asset(
    group="generation",
    kinds={"python"},
    owner="data",
    paper="3.1",
    suites=SUITES,
    tables=(CAPTIONS,),
    taken_over={"poses": ["pose_id", "split", "num_people"]},
)
def captions(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """A prompt for each image, without personal names."""
    yield from stages.make(context)
