"""The paper's tables 2 to 12 from whatever was evaluated (paper 5)."""

import dagster as dg

from assets.checks.benchmark_scores import SUITES
from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="detector",
    kinds={"pytorch"},
    owner="models",
    paper="5",
    max_age_days=30,
    suites=SUITES,
)
def benchmark_scores(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """Scores of our models, of others' predictions and of the paper, table by table.

    Public sets count once their folders are named in params.yaml; sets of the same layouts are
    generated from held-out renders, which shows that all of section 5 runs. Scores of the trained
    models go to their MLflow runs.
    """
    yield from stages.make(context)
