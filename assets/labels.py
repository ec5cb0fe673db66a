"""Hand labels for the box detector (paper 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.labels import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.labels import LabelsConfig


@stage_asset(
    config="ml.stages.labels:LabelsConfig",
    group="annotation",
    kinds={"coco"},
    suites=SUITES,
)
def labels(ws: Workspace, config: LabelsConfig) -> StageReport:
    """Head boxes of a sample of images as COCO files.

    In the demo the renderer's truth stands in for the annotator.
    """
    from ml.stages.labels import run

    return run(ws, config)
