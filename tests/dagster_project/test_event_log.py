"""Dagster's events in batches against Dagster's events one by one."""

import sqlite3
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.env import STORAGE
from dagster_project.event_log import BatchingEventLog

PARTITIONS = dg.StaticPartitionsDefinition(["a", "b", "c", "d", "e"])
COLUMNS = "dagster_event_type, asset_key, partition"


@dg.asset(partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run())
def numbers(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Makes nothing."""
    return dg.MaterializeResult(metadata={"of": len(context.partition_keys)})


def materialised(home: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> dict[str, object]:
    """What Dagster recorded of one run of all partitions."""
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", str(batch))
    home.mkdir()
    overrides = {"storage": STORAGE}
    with dg.DagsterInstance.local_temp(str(home), overrides=overrides) as instance:
        tags = {
            "dagster/asset_partition_range_start": "a",
            "dagster/asset_partition_range_end": "e",
        }
        job = dg.Definitions(assets=[numbers], jobs=[dg.define_asset_job("all")])
        result = job.resolve_job_def("all").execute_in_process(instance=instance, tags=tags)
        assert result.success
        log = instance.event_log_storage
        key = dg.AssetKey("numbers")
        latest = instance.get_latest_materialization_event(key)
        assert latest is not None
        materialization = latest.asset_materialization
        assert materialization is not None
        recorded: dict[str, object] = {
            "partitions": log.get_materialized_partitions(key),
            "latest": (materialization.partition, dict(materialization.metadata)),
            "run": [str(event.dagster_event_type) for event in instance.all_logs(result.run_id)],
            "keys": instance.get_asset_keys(),
        }
    with closing(sqlite3.connect(home / "history" / "runs" / "index.db")) as connection:
        rows = connection.execute(f"SELECT {COLUMNS} FROM event_logs ORDER BY id").fetchall()
    return {**recorded, "index": rows}


@pytest.mark.parametrize(("batch", "transactions"), [(2, 3), (200, 1)])
def test_batches_record_what_single_events_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, transactions: int
) -> None:
    connections: list[object] = []
    opened = BatchingEventLog.run_connection

    def counted(self: BatchingEventLog, run_id: str | None = None) -> object:
        connections.append(run_id)
        return opened(self, run_id)

    monkeypatch.setattr(BatchingEventLog, "run_connection", counted)
    single = materialised(tmp_path / "single", monkeypatch, 0)
    assert single["partitions"] == {"a", "b", "c", "d", "e"}
    before = len(connections)
    connections.clear()
    batched = materialised(tmp_path / "batched", monkeypatch, batch)
    assert batched == single
    # Planned and made partitions: five of each.
    assert before - len(connections) == 2 * (5 - transactions)
