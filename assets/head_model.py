"""The head model that every label refers to."""

import dagster as dg

from assets.stage_asset import StageEvents, StageRunner, stage_asset


@stage_asset(
    group="generation",
    kinds={"numpy"},
    owner="data",
    paper="4",
)
def head_model(context: dg.AssetExecutionContext, stages: StageRunner) -> StageEvents:
    """A head in FLAME's file format: 5,023 vertices, 300 shape and 100 expression components.

    The demo's head is procedural; licensed FLAME files take its place in other profiles.
    """
    yield from stages.make(context)
