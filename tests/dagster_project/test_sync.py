"""What is reported from dvc.lock: recorded data that are on disk and that Dagster does not know."""

from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_project.sync import DvcSync, build_sensor

LOCKED = {
    "not_of_this_project": {"data/other": "0"},
    "without_data": {},
    "known": {"data/known": "1"},
    "not_on_disk": {"data/gone": "2"},
    "squares": {"data/squares": "3", "reports/squares": "4"},
    "total": {"data/total": "5"},
}


@pytest.fixture
def sync():
    """Each stage but the last two is a reason to report nothing; those after it are reported."""

    class Bridge:
        def locked(self):
            return LOCKED

        def on_disk(self, stages):
            return {stage: {} if stage == "not_on_disk" else LOCKED[stage] for stage in stages}

    stages = list(LOCKED)[1:]
    assets = {stage: SimpleNamespace(partitioned=stage == "squares") for stage in stages}
    return DvcSync(
        SimpleNamespace(bridge=Bridge(), graph=stages, assets=assets, shards=["one", "two"])
    )


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {"dagster/data_version": "1"}
        instance.report_runless_asset_event(dg.AssetMaterialization("known", tags=tags))
        yield instance


def test_what_is_on_disk_and_unknown_is_reported_whatever_comes_before_it(sync, instance):
    found = [
        (event.asset_key.to_user_string(), event.partition, event.tags["dagster/data_version"])
        for event in sync.unknown(instance)
    ]
    assert found == [("squares", "one", "3+4"), ("squares", "two", "3+4"), ("total", None, "5")]


def test_an_event_names_its_source_and_the_hashes(sync, instance):
    event = sync.unknown(instance)[0]
    assert event.description == "reported from dvc.lock"
    assert {name: value.value for name, value in event.metadata.items()} == {
        "dvc: data/squares": "3",
        "dvc: reports/squares": "4",
    }


def test_another_version_is_reported_again(sync, instance):
    for event in sync.unknown(instance):
        instance.report_runless_asset_event(event)
    assert sync.unknown(instance) == []
    tags = {"dagster/data_version": "old"}
    instance.report_runless_asset_event(dg.AssetMaterialization("total", tags=tags))
    assert [event.asset_key.path for event in sync.unknown(instance)] == [["total"]]


def test_the_sensor_reports_the_same(sync, instance):
    sensor = build_sensor(sync)
    assert (sensor.name, sensor.minimum_interval_seconds) == ("dvc_lock_sensor", 30)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    result = sensor(dg.build_sensor_context(instance=instance))
    assert len(result.asset_events) == 3
