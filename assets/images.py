"""Images from skeleton, prompt and seed (paper 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.images import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.generation.config import ImagesConfig
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace


@stage_asset(
    config="ml.generation.config:ImagesConfig",
    group="images",
    kinds={"numba", "opencv"},
    sharded=True,
    suites=SUITES,
)
def images(ws: Workspace, config: ImagesConfig, shard: str) -> StageReport:
    """Pictures of people in tar shards, and the renderer's exact truth in tables of its own.

    Only labels, the regressor's training set and evaluation may read the truth.
    """
    from ml.stages.images import run_shard

    return run_shard(ws, config, shard)
