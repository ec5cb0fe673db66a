"""From dvc.lock to Dagster: reports data that came by git, `dvc pull` or DVC's run cache."""

from dataclasses import dataclass

import dagster as dg

from dagster_project.dvc_sync import data_version
from dagster_project.pipeline import Pipeline
from dagster_project.resources import ProjectResource
from ops.resources import RecordedData

_VERSION_TAG = "dagster/data_version"


@dataclass(frozen=True)
class DvcSync:
    """Compares data versions, not the lock's time or hash: a change back would be missed.

    Attributes:
        pipeline: the project.
    """

    pipeline: Pipeline

    def unknown(self, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
        """Return materializations of stages whose recorded data Dagster does not know.

        Only of data that is really on disk as dvc.lock records it.

        Args:
            instance: Dagster's instance.
        """
        events = []
        for stage, versions in self.pipeline.bridge.locked().items():
            if stage not in self.pipeline.graph or not versions:
                continue
            version = data_version(versions)
            if self._latest(instance, stage) == version:
                continue
            if self.pipeline.bridge.on_disk([stage])[stage] != versions:
                continue
            partitioned = self.pipeline.assets[stage].partitioned
            events += [
                dg.AssetMaterialization(
                    stage,
                    partition=partition,
                    description="reported from dvc.lock",
                    metadata={f"dvc: {path}": md5 for path, md5 in versions.items()},
                    tags={_VERSION_TAG: version},
                )
                for partition in (self.pipeline.shards if partitioned else [None])
            ]
        return events

    @staticmethod
    def _latest(instance: dg.DagsterInstance, stage: str) -> str | None:
        event = instance.get_latest_materialization_event(dg.AssetKey(stage))
        materialization = event.asset_materialization if event else None
        return (materialization.tags or {}).get(_VERSION_TAG) if materialization else None


class DvcSyncResource(RecordedData):
    """What the project's dvc.lock records."""

    project: ProjectResource
    """The project."""

    def unknown(self, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
        """Return materializations of recorded data that Dagster does not know."""
        return DvcSync(self.project.pipeline).unknown(instance)


def build_sensor(sync: DvcSync) -> dg.SensorDefinition:
    """Return the sensor that keeps Dagster in step with dvc.lock."""

    @dg.sensor(
        name="dvc_lock_sensor",
        description="Reports data that are recorded in dvc.lock but unknown to Dagster.",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def dvc_lock_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return dg.SensorResult(asset_events=sync.unknown(context.instance))

    return dvc_lock_sensor
