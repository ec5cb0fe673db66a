"""The detector that finds heads to annotate (paper 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.head_detector import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.head_detector import HeadDetectorConfig
    from ml.training.tracking import Tracker


@stage_asset(
    config="ml.stages.head_detector:HeadDetectorConfig",
    group="annotation",
    kinds={"pytorch", "transformers"},
    tracked=True,
    suites=SUITES,
)
def head_detector(ws: Workspace, config: HeadDetectorConfig, tracker: Tracker) -> StageReport:
    """An RT-DETR, trained on the labels."""
    from ml.stages.head_detector import run

    return run(ws, config, tracker)
