"""How good the pseudo-labels are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.stage_asset import stage_asset

if TYPE_CHECKING:
    from ml.evaluation.annotation_quality import AnnotationQualityConfig
    from ml.records.report import StageReport
    from ml.records.workspace import Workspace


@stage_asset(
    config="ml.evaluation.annotation_quality:AnnotationQualityConfig",
    group="evaluation",
    kinds={"pytorch"},
)
def annotation_quality(ws: Workspace, config: AnnotationQualityConfig) -> StageReport:
    """Pseudo-labels against exact truth: recall, precision, NME, rotation error."""
    from ml.evaluation.annotation_quality import run
    from ml.training.determinism import prepare_torch

    prepare_torch(ws, "annotation_quality")
    return run(ws, config)
