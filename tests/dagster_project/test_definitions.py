"""What Dagster's pages offer besides the assets: jobs, sensors, the queue, links."""

import dagster as dg
import pytest

from dagster_project.definitions import DEMO_JOB, build_definitions
from dagster_project.env import dagster_config, prepare
from dagster_project.resources import MLFLOW_ADDRESS
from dagster_project.stages import STAGES, project
from ops.studies import STUDY_JOBS


@pytest.fixture(scope="module")
def definitions():
    return build_definitions(project())


def test_one_job_makes_assets_and_no_job_makes_a_single_one(definitions):
    jobs = {job.name for job in definitions.jobs}
    assert {DEMO_JOB, *(job.name for job in STUDY_JOBS)} < jobs
    of_assets = [job for job in definitions.jobs if hasattr(job, "selection")]
    assert [job.name for job in of_assets] == [DEMO_JOB]
    assert not [name for name in jobs if name.startswith("make_") or name in STAGES]


def test_stale_assets_are_made_only_where_somebody_switches_that_on(definitions):
    on = {sensor.name: sensor.default_status.value for sensor in definitions.sensors}
    assert on == {"dvc_lock_sensor": "RUNNING", "make_what_is_stale": "STOPPED"}
    for asset in definitions.assets:
        if isinstance(asset, dg.AssetsDefinition):
            for spec in asset.specs:
                assert spec.automation_condition is not None, spec.key


def test_runs_of_the_pages_are_queued_two_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = prepare(tmp_path)
    assert dagster_config(home)["concurrency"] == {"runs": {"max_concurrent_runs": 2}}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"


@pytest.mark.parametrize(
    ("given", "address"),
    [(None, "http://127.0.0.1:5000"), ("http://127.0.0.1:4000", "http://127.0.0.1:4000")],
)
def test_links_to_mlflow_follow_the_port_of_the_pages(given, address, monkeypatch):
    monkeypatch.delenv(MLFLOW_ADDRESS, raising=False)
    if given:
        monkeypatch.setenv(MLFLOW_ADDRESS, given)
    assert build_definitions(project()).resources["mlflow"].address == address
