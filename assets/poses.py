"""Skeletons: the start of every image (paper 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.poses import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.poses.config import PosesConfig
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace


@stage_asset(
    config="ml.poses.config:PosesConfig",
    group="sources",
    kinds={"numpy"},
    sharded=True,
    suites=SUITES,
)
def poses(ws: Workspace, config: PosesConfig, shard: str) -> StageReport:
    """COCO-17 skeletons of one to eight people, without any pixel of a source image.

    The split of everything made later is fixed here, by the pose.
    """
    from ml.stages.poses import run_shard

    return run_shard(ws, config, shard)
