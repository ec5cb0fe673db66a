"""Images generated from skeletons, prompts and seeds (paper 3.1)."""

import dagster as dg

from assets.checks.images import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset
from ml.records.tables import IMAGES, TRUTH


@stage_asset(
    group="generation",
    kinds={"numba", "opencv"},
    owner="data",
    paper="3.1",
    suites=SUITES,
    tables=(
        IMAGES,
        TRUTH,
    ),
    taken_over={"captions": ["sample_id", "pose_id", "split", "num_people", "seed"]},
)
def images(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Images of people in tar shards, and the renderer's exact ground truth in separate tables.

    Only `labels`, the regressor's training data and evaluations may read the ground truth.
    """
    yield from stages.make(context)
