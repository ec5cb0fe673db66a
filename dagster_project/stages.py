"""The registry: every stage of the pipeline, in reading order.

A stage's entry names its configuration class and the function that does the work as text, so that
the command line and a worker process import no more than they use. Edges are not here but in
dvc.yaml; what Dagster shows of a stage is in `assets/<name>.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster_project.pipeline import Pipeline
from dagster_project.stage import OwnShards, Stage, Step
from ml.records.config import read_config
from ml.records.ids import shard_name

ROOT = Path(__file__).resolve().parents[1]


def crop_shards(section: Mapping[str, Any]) -> list[str]:
    """Return names of the crop shards: crops are not divided as the dataset is.

    Args:
        section: section `crops` of params.yaml, which states what differs from the defaults.
    """
    from ml.generation.config import CropsConfig

    config = read_config(CropsConfig, "crops", section)
    num_shards = math.ceil(config.num_crops / config.crops_per_shard)
    return [shard_name(index, "crops") for index in range(num_shards)]


def _whole(name: str, config: str, *, tracked: bool = False, step: Step | None = None) -> Stage:
    function = f"ml.stages.{name}:run"
    return Stage(name, config, function, f"assets.{name}", tracked=tracked, step=step)


def _sharded(name: str, config: str, own_shards: OwnShards | None = None) -> Stage:
    function = f"ml.stages.{name}:run_shard"
    return Stage(name, config, function, f"assets.{name}", sharded=True, own_shards=own_shards)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        _whole("head_model", "ml.stages.head_model:HeadModelConfig"),
        _sharded("poses", "ml.poses.config:PosesConfig"),
        _sharded("captions", "ml.captions.config:CaptionsConfig"),
        _sharded("images", "ml.generation.config:ImagesConfig"),
        _whole("labels", "ml.stages.labels:LabelsConfig"),
        _whole("head_detector", "ml.stages.head_detector:HeadDetectorConfig", tracked=True),
        _sharded("crops", "ml.generation.config:CropsConfig", crop_shards),
        _whole("flame_regressor", "ml.stages.flame_regressor:FlameRegressorConfig", tracked=True),
        _sharded("annotations", "ml.stages.annotations:AnnotationsConfig"),
        _whole("annotation_quality", "ml.stages.annotation_quality:AnnotationQualityConfig"),
        _whole(
            "filtered_dataset",
            "ml.stages.filtered_dataset:FilteredDatasetConfig",
            step=Step(
                "judged",
                "ml.stages.filtered_dataset:judge_shard",
                ("images", "annotations", "head_detector"),
            ),
        ),
        _whole("trained_model", "ml.stages.trained_model:TrainedModelConfig", tracked=True),
        _whole(
            "trained_model_exact",
            "ml.stages.trained_model_exact:TrainedModelExactConfig",
            tracked=True,
        ),
        _whole("benchmark", "ml.stages.benchmark:BenchmarkConfig"),
        _whole("released_dataset", "ml.stages.released_dataset:ReleasedDatasetConfig"),
        _whole("released_model", "ml.stages.released_model:ReleasedModelConfig", tracked=True),
        _whole("released_benchmark", "ml.stages.released_benchmark:ReleasedBenchmarkConfig"),
        _whole("benchmark_scores", "ml.benchmarks.config:BenchmarkScoresConfig"),
    )
}


def project() -> Pipeline:
    """Return the pipeline of this checkout."""
    return Pipeline(ROOT, STAGES)
