"""The paper's tables 2 to 12 from all available evaluations (paper 5)."""

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
    """The paper's tables with scores of our models, of other methods, and as printed.

    A public set is evaluated once params.yaml states its folder. Sets in the same layouts are
    generated from held-out renders, so that every evaluation of section 5 is run. Scores of trained
    models are logged to their MLflow runs.
    """
    yield from stages.make(context)
