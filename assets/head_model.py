"""The head model that every label refers to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.head_model import HeadModelConfig


@stage_asset(
    config="ml.stages.head_model:HeadModelConfig",
    group="sources",
    kinds={"numpy"},
)
def head_model(ws: Workspace, config: HeadModelConfig) -> StageReport:
    """A head in FLAME's file format: 5,023 vertices, 300 shape and 100 expression components.

    The demo's head is procedural; licensed FLAME files take its place in other profiles.
    """
    from ml.stages.head_model import run

    return run(ws, config)
