"""The regressor that labels heads with FLAME parameters (paper 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.flame_regressor import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.flame_regressor import FlameRegressorConfig
    from ml.training.tracking import Tracker


@stage_asset(
    config="ml.stages.flame_regressor:FlameRegressorConfig",
    group="annotation",
    kinds={"pytorch"},
    tracked=True,
    suites=SUITES,
)
def flame_regressor(ws: Workspace, config: FlameRegressorConfig, tracker: Tracker) -> StageReport:
    """From a crop of a head to 413 parameters; stands where the paper has DAD-3DNet."""
    from ml.stages.flame_regressor import run

    return run(ws, config, tracker)
