"""The filtered dataset (paper 3.3)."""

import dagster as dg

from assets.checks.filtered_dataset import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset
from ml.records.tables import DATASET_HEADS, HEADS, VERDICTS


@stage_asset(
    group="filtering",
    kinds={"pandas"},
    owner="data",
    paper="3.3",
    suites=SUITES,
    tables=(
        DATASET_HEADS,
        VERDICTS,
    ),
    taken_over={"annotations": [column.name for column in HEADS.columns], "images": ["shard"]},
)
def filtered_dataset(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Images that pass the four consistency rules, with heads, splits, statistics and dataset card.

    Its checks gate the training.
    """
    yield from stages.make(context)
