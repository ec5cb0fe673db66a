"""The registry: every stage of the pipeline, in reading order.

A stage's entry names its configuration class and the function that does the work as text; its
libraries load when it runs. Edges are not here but in dvc.yaml.
"""

from __future__ import annotations

from pathlib import Path

from assets.annotation_quality import annotation_quality
from assets.annotations import annotations
from assets.benchmark import benchmark
from assets.captions import captions
from assets.crops import crops
from assets.filtered_dataset import filtered_dataset
from assets.flame_regressor import flame_regressor
from assets.head_detector import head_detector
from assets.head_model import head_model
from assets.images import images
from assets.labels import labels
from assets.poses import poses
from assets.stage_asset import StageAsset
from assets.trained_model import trained_model
from assets.trained_model_exact import trained_model_exact
from dagster_project.pipeline import Pipeline

STAGES: dict[str, StageAsset] = {
    stage.name: stage
    for stage in (
        head_model,
        poses,
        captions,
        images,
        labels,
        head_detector,
        crops,
        flame_regressor,
        annotations,
        annotation_quality,
        filtered_dataset,
        trained_model,
        trained_model_exact,
        benchmark,
    )
}

ROOT = Path(__file__).resolve().parents[1]


def project() -> Pipeline:
    """The pipeline of this checkout."""
    return Pipeline(ROOT, STAGES)
