"""Captions and prompts (paper 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.captions import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.captions.config import CaptionsConfig
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace


@stage_asset(
    config="ml.captions.config:CaptionsConfig",
    group="sources",
    kinds={"python"},
    sharded=True,
    suites=SUITES,
)
def captions(ws: Workspace, config: CaptionsConfig, shard: str) -> StageReport:
    """What each image shows, as a prompt free of personal names."""
    from ml.stages.captions import run_shard

    return run_shard(ws, config, shard)
