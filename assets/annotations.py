"""Pseudo-labels of every image (paper 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.annotations import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.annotations import AnnotationsConfig


@stage_asset(
    config="ml.stages.annotations:AnnotationsConfig",
    group="annotation",
    kinds={"pytorch"},
    sharded=True,
    suites=SUITES,
)
def annotations(ws: Workspace, config: AnnotationsConfig, shard: str) -> StageReport:
    """Heads found by the detector, with parameters from the regressor; small heads go without."""
    from ml.stages.annotations import run_shard

    return run_shard(ws, config, shard)
