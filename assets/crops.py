"""Training data of the FLAME regressor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assets.checks.crops import SUITES
from assets.stage_asset import stage_asset
from ml.generation.config import CropsConfig
from ml.records.config import read_config
from ml.records.ids import shard_name

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace


def crop_shards(section: Mapping[str, Any]) -> list[str]:
    """Names of the crop shards: crops are not divided as the dataset is.

    Args:
        section: section `crops` of params.yaml, which states what differs from the defaults.
    """
    config = read_config(CropsConfig, "crops", section)
    num_shards = math.ceil(config.num_crops / config.crops_per_shard)
    return [shard_name(index, "crops") for index in range(num_shards)]


@stage_asset(
    config="ml.generation.config:CropsConfig",
    group="annotation",
    kinds={"numba"},
    sharded=True,
    own_shards=crop_shards,
    suites=SUITES,
)
def crops(ws: Workspace, config: CropsConfig, shard: str) -> StageReport:
    """Single rendered heads with exact parameters."""
    from ml.stages.crops import run_shard

    return run_shard(ws, config, shard)
