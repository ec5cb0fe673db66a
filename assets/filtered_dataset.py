"""The dataset (paper 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.filtered_dataset import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.filtered_dataset import FilteredDatasetConfig


@stage_asset(
    config="ml.stages.filtered_dataset:FilteredDatasetConfig",
    group="dataset",
    kinds={"pandas"},
    suites=SUITES,
)
def filtered_dataset(ws: Workspace, config: FilteredDatasetConfig) -> StageReport:
    """Images that pass the four consistency rules, with their heads, split, statistics and card.

    Its checks gate the training.
    """
    from ml.stages.filtered_dataset import run

    return run(ws, config)
