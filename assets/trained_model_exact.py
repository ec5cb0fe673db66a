"""The same detector, trained on exact truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.trained_model_exact import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.trained_model_exact import TrainedModelExactConfig
    from ml.training.tracking import Tracker


@stage_asset(
    config="ml.stages.trained_model_exact:TrainedModelExactConfig",
    group="training",
    kinds={"pytorch", "lightning"},
    tracked=True,
    suites=SUITES,
)
def trained_model_exact(
    ws: Workspace, config: TrainedModelExactConfig, tracker: Tracker
) -> StageReport:
    """The upper bound: `trained_model` with the renderer's truth in place of pseudo-labels."""
    from ml.stages.trained_model_exact import run

    return run(ws, config, tracker)
