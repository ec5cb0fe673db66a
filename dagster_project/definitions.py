"""What Dagster loads: the assets of all stages, jobs, the DVC sensor, resources."""

from __future__ import annotations

from functools import partial

import dagster as dg

from dagster_project.checker import Checker
from dagster_project.env import prepare
from dagster_project.factory import build_asset
from dagster_project.partitions import shard_partitions
from dagster_project.pipeline import Pipeline
from dagster_project.resources import MLflowResource, ShardEngine
from dagster_project.stages import project
from dagster_project.sync import DvcSync, build_sensor
from dagster_project.takedown import run_takedown
from ops.dataset import export_dataset_job, label_export_job, takedown_job
from ops.dvc_sync import dvc_sync_job
from ops.model_promotion import model_promotion_job
from ops.recheck import recheck_job

DEMO_JOB = "demo"


def build_definitions(pipeline: Pipeline) -> dg.Definitions:
    """Definitions of a project.

    Args:
        pipeline: the project folder and its stages.
    """
    partitions = shard_partitions(pipeline.shards)
    sync = DvcSync(pipeline)
    stage_jobs = [
        dg.define_asset_job(f"make_{stage}", selection=[stage], description=f"Only {stage}.")
        for stage in pipeline.graph
    ]
    demo = dg.define_asset_job(
        DEMO_JOB, selection=list(pipeline.graph), description="The whole pipeline."
    )
    return dg.Definitions(
        assets=[build_asset(pipeline, pipeline.assets[s], partitions) for s in pipeline.graph],
        jobs=[
            demo,
            *stage_jobs,
            dvc_sync_job,
            recheck_job,
            model_promotion_job,
            export_dataset_job,
            label_export_job,
            takedown_job,
        ],
        sensors=[build_sensor(sync)],
        resources={
            "engine": ShardEngine(),
            "mlflow": MLflowResource(folder=str(pipeline.root / "mlruns")),
            "dvc_sync": dg.ResourceDefinition.hardcoded_resource(sync),
            "project": dg.ResourceDefinition.hardcoded_resource(pipeline),
            "takedown": dg.ResourceDefinition.hardcoded_resource(partial(run_takedown, pipeline)),
            "checker": dg.ResourceDefinition.hardcoded_resource(Checker(pipeline)),
        },
        # Stages run one after the other in one process; inside a stage, the engine's processes
        # share the work.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of this checkout."""
    pipeline = project()
    prepare(pipeline.root)
    return build_definitions(pipeline)
