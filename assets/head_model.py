"""The head model of all FLAME parameters."""

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

    The demo's head is built from MakeHuman's CC0 data; other profiles use licensed FLAME files.
    """
    yield from stages.make(context)
