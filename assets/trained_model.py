"""The single-shot detector (paper 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.trained_model import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.trained_model import TrainedModelConfig
    from ml.training.tracking import Tracker


@stage_asset(
    config="ml.stages.trained_model:TrainedModelConfig",
    group="training",
    kinds={"pytorch", "lightning"},
    tracked=True,
    suites=SUITES,
)
def trained_model(ws: Workspace, config: TrainedModelConfig, tracker: Tracker) -> StageReport:
    """All heads of an image, boxes and FLAME parameters, in one pass; trained on pseudo-labels."""
    from ml.stages.trained_model import run

    return run(ws, config, tracker)
