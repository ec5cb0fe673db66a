"""Dagster's definitions: assets of all stages, jobs, the DVC sensor, automation, resources."""

from __future__ import annotations

import importlib
import os

import dagster as dg

from assets.public_sets import NAMES, READER, public_sets, set_key
from assets.stage_asset import completed
from dagster_project.checker import CheckerResource
from dagster_project.env import prepare
from dagster_project.partitions import shard_partitions
from dagster_project.pipeline import Pipeline
from dagster_project.resources import (
    MLFLOW_ADDRESS,
    MLFLOW_PORT,
    FineTuningResource,
    MLflowResource,
    PreflightResource,
    ProjectResource,
    ShardEngine,
    TakedownResource,
)
from dagster_project.runner import RecordedStageRunner
from dagster_project.stages import project
from dagster_project.sync import DvcSync, DvcSyncResource, build_sensor
from ops.dataset import export_dataset_job, fine_tune_job, label_export_job, takedown_job
from ops.dvc_sync import dvc_sync_job
from ops.model_promotion import model_promotion_job
from ops.preflight import preflight_job
from ops.recheck import audit_schedule, recheck_job
from ops.studies import STUDY_JOBS

DEMO_JOB = "demo"


def build_definitions(pipeline: Pipeline) -> dg.Definitions:
    """Return definitions of a project.

    Args:
        pipeline: the project folder and its stages.
    """
    return dg.Definitions(
        assets=[*stage_assets(pipeline), *outside_assets(pipeline)],
        jobs=[
            dg.define_asset_job(
                DEMO_JOB, selection=list(pipeline.graph), description="The whole pipeline."
            ),
            dvc_sync_job,
            recheck_job,
            preflight_job,
            model_promotion_job,
            export_dataset_job,
            label_export_job,
            takedown_job,
            fine_tune_job,
            *STUDY_JOBS,
        ],
        schedules=[audit_schedule],
        sensors=[build_sensor(DvcSync(pipeline)), build_automation()],
        resources=build_resources(pipeline),
        # Stages run one after another in one process; the engine's processes share the work of a
        # stage.
        executor=dg.in_process_executor,
    )


def stage_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """Return the assets as their modules declare them, with dvc.yaml's and params.yaml's values.

    Raises:
        ValueError: a module holds no asset of its stage's name.
    """
    names = dict.fromkeys(stage.asset_module for stage in pipeline.assets.values())
    modules = [importlib.import_module(name) for name in names]
    loaded = {
        asset.key.to_user_string(): asset
        for asset in dg.load_assets_from_modules(modules)
        if isinstance(asset, dg.AssetsDefinition)
    }
    if missing := sorted(set(pipeline.graph) - set(loaded)):
        raise ValueError(f"no asset in {', '.join(names)} for the stages {missing} of dvc.yaml")
    partitions = shard_partitions(pipeline.shards)

    return [
        completed(
            loaded[name],
            # Of several ready stages the first in dvc.yaml runs first.
            priority=-number,
            deps=[*node.upstream, *(set_key(of) for of in NAMES if name == READER)],
            code_version=pipeline.code_version(name),
            partitions_def=partitions if pipeline.assets[name].partitioned else None,
            automation_condition=dg.AutomationCondition.eager(),
        )
        for number, (name, node) in enumerate(pipeline.graph.items())
    ]


def outside_assets(pipeline: Pipeline) -> list[dg.SourceAsset]:
    """Return the public sets, in a project that has the stage which reads them."""
    return public_sets() if READER in pipeline.assets else []


def build_automation() -> dg.SensorDefinition:
    """Return the sensor that reruns stages with changed inputs; off until enabled in the UI."""
    return dg.AutomationConditionSensorDefinition(
        "make_what_is_stale",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Materialises an asset when one of its dependencies has changed.",
    )


def build_resources(pipeline: Pipeline) -> dict[str, dg.ConfigurableResource]:
    """Return the resources of assets and ops."""
    this = ProjectResource(root=str(pipeline.root), registry=pipeline.registry)
    address = os.environ.get(MLFLOW_ADDRESS, f"http://127.0.0.1:{MLFLOW_PORT}")
    mlflow = MLflowResource(folder=str(pipeline.root / "mlruns"), address=address)
    engine = ShardEngine()
    return {
        "stages": RecordedStageRunner(project=this, engine=engine, mlflow=mlflow),
        "engine": engine,
        "mlflow": mlflow,
        "dataset": this,
        "recorded": DvcSyncResource(project=this),
        "takedown": TakedownResource(project=this),
        "fine_tuning": FineTuningResource(project=this),
        "judge": CheckerResource(project=this),
        "preflight": PreflightResource(project=this),
    }


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of this checkout."""
    pipeline = project()
    prepare(pipeline.root)
    return build_definitions(pipeline)
