"""How good the pseudo-labels are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.checks.annotation_quality import SUITES
from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace
    from ml.stages.annotation_quality import AnnotationQualityConfig


@stage_asset(
    config="ml.stages.annotation_quality:AnnotationQualityConfig",
    group="evaluation",
    kinds={"pytorch"},
    suites=SUITES,
)
def annotation_quality(ws: Workspace, config: AnnotationQualityConfig) -> StageReport:
    """Pseudo-labels against exact truth: recall, precision, NME, rotation error."""
    from ml.stages.annotation_quality import run

    return run(ws, config)
