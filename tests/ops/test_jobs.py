"""The jobs that make no asset."""

import dagster as dg
import pytest

from ops.model_promotion import model_promotion_job
from ops.recheck import audit_schedule, recheck_job
from ops.resources import Judge, ModelStore


class Store(ModelStore):
    uri: str

    @property
    def tracking_uri(self) -> str:
        return self.uri

    @property
    def runs_folder(self):
        raise AssertionError("a promotion asks the store by its address")


def promote(tracking_uri: str, **config) -> None:
    model_promotion_job.execute_in_process(
        resources={"mlflow": Store(uri=tracking_uri)},
        run_config={"ops": {"promote_model": {"config": config}}},
    )


def test_promotion_moves_the_alias_to_the_newest_version(tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    client.create_registered_model("heads")
    for _ in range(11):
        client.create_model_version("heads", str(tmp_path))
    promote(uri, model="heads")
    assert client.get_model_version_by_alias("heads", "champion").version == 11
    promote(uri, model="heads", version="9")
    assert client.get_model_version_by_alias("heads", "champion").version == 9
    with pytest.raises(dg.Failure, match=r"no registered model 'head'; there are \['heads'\]"):
        promote(uri, model="head")


class Checker(Judge):
    def judge(self, stages):
        for name, problem in (("good", ""), ("bad", "poses: shard-00001 row 2 is wrong")):
            yield (
                dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey("poses"), check_name=name, passed=not problem
                ),
                problem,
            )


def test_recheck_reports_every_result_and_fails_with_the_place():
    with dg.DagsterInstance.ephemeral() as instance:
        result = recheck_job.execute_in_process(
            instance=instance,
            resources={"judge": Checker()},
            raise_on_error=False,
        )
        assert not result.success
        failure = result.failure_data_for_node("judge_stages").user_failure_data
        assert failure.description == "poses: shard-00001 row 2 is wrong"
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("poses"), "bad"), limit=1
        )
        assert [record.status.value for record in history] == ["FAILED"]


def test_the_audit_is_scheduled_and_off():
    assert audit_schedule.job_name == recheck_job.name
    assert audit_schedule.default_status == dg.DefaultScheduleStatus.STOPPED
