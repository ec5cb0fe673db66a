"""Both doors, resume, changes, blocking checks: on a toy project, through real Dagster and DVC."""

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pandas as pd
import pytest

from dagster_project.definitions import DEMO_JOB, build_definitions
from dagster_project.partitions import shard_partitions
from dagster_project.resources import MLflowResource
from ml.training.tracking import log_data

ALL = [f"{stage} shard-0000{i}" for stage in ("numbers", "squares") for i in range(3)] + [
    "total stage"
]


def instance_of(toy):
    return dg.DagsterInstance.from_config(str(toy.root / ".dagster"))


def test_repeating_the_demo_does_nothing(toy, capsys):
    assert "up to date" in toy.dvc("status")
    with instance_of(toy) as instance:
        before = instance.get_runs_count()
    assert toy.run("demo") == 0
    assert toy.made() == []
    assert "nothing to do" in capsys.readouterr().out
    with instance_of(toy) as instance:
        assert instance.get_runs_count() == before == len(toy.pipeline.graph)
        key = dg.AssetKey("numbers")
        assert instance.get_materialized_partitions(key) == set(toy.pipeline.shards)
        event = instance.get_latest_materialization_event(key).asset_materialization
    locked = toy.pipeline.bridge.locked()
    assert event.tags["dagster/data_version"] == locked["numbers"]["data/numbers"]


def test_a_training_s_datasets_have_the_hashes_of_dvc_lock(toy):
    import mlflow

    store = MLflowResource(folder=str(toy.root / "mlruns"))
    stage = SimpleNamespace(name="total")
    sizes = {"train": {"images": 3}, "val": {"images": 1}}
    with store.run(toy.pipeline, stage, "dagster-run") as (tracker, _):
        log_data(tracker, "squares", sizes)
    used = mlflow.MlflowClient(store.tracking_uri).get_run(tracker.run_id).inputs.dataset_inputs
    locked = toy.pipeline.bridge.locked()["squares"]["data/squares"]
    assert len(locked.removesuffix(".dir")) == 32
    assert {(one.dataset.name, one.dataset.digest) for one in used} == {
        ("squares/train", locked), ("squares/val", locked),
    }  # fmt: skip


def test_a_parameter_reruns_its_stage_and_its_descendants_only(toy):
    toy.set_param("power: 2", "power: 3")
    assert toy.pipeline.stale() == ["squares"]
    assert toy.run("demo") == 0
    assert toy.made() == ALL[3:]


def test_more_shards_keep_those_that_exist(toy):
    toy.set_param("num_shards: 3", "num_shards: 4")
    assert toy.run("demo") == 0
    assert toy.made() == ["numbers shard-00003", "squares shard-00003", "total stage"]
    toy.set_param("num_shards: 4", "num_shards: 2")
    assert toy.run("demo") == 0
    assert toy.made() == ["total stage"]
    assert not (toy.root / "data/numbers/shard-00003.parquet").exists()


@pytest.mark.rehearsal
def test_a_changed_default_reruns_its_stage_through_dvc(toy):
    """params.yaml leaves the value out, so only the code that states it can tell DVC."""
    total = toy.root / "data/total/metrics.json"
    before = json.loads(total.read_text())["total"]
    assert "offset" not in (toy.root / "params.yaml").read_text()
    code = toy.root / "toy_total.py"
    code.write_text(code.read_text().replace("offset: int = 0", "offset: int = 5"))
    status = toy.dvc("status")
    assert "total:" in status
    assert "squares:" not in status
    toy.dvc("repro")
    assert toy.made() == ["total stage"]
    assert json.loads(total.read_text())["total"] == before + 5


def test_equal_results_of_changed_code_change_nothing_after_it(toy):
    (toy.root / "code" / "numbers.py").write_text("# another comment\n")
    assert toy.run("demo") == 0
    assert toy.made() == ALL[:3], "shards made from equal shards are kept"


@pytest.mark.rehearsal
def test_dvc_repro_is_the_same_work_through_the_same_assets(toy):
    expected, versions = toy.bytes(), toy.pipeline.bridge.locked()
    for path in ("data", "dvc.lock", ".dvc/cache"):
        target = toy.root / path
        target.unlink() if target.is_file() else shutil.rmtree(target)
    toy.dvc("repro")
    assert toy.made() == ALL
    assert toy.bytes() == expected
    assert toy.pipeline.bridge.locked() == versions
    with instance_of(toy) as instance:
        run = instance.get_runs(limit=1)[0]
        assert run.tags["launched_by"] == "dvc repro"
    assert toy.run("demo") == 0
    assert toy.made() == []


def test_unfinished_work_goes_also_when_the_result_is_the_recorded_one(toy):
    left = toy.root / "data" / ".work" / "total" / "of a killed run" / "last.ckpt"
    left.parent.mkdir(parents=True)
    left.write_text("")
    assert toy.run("materialize", "total", "--force") == 0
    assert not left.exists()


def test_two_processes_give_the_bytes_of_one(toy):
    expected = toy.bytes()
    toy.set_param("workers: 0", "workers: 2")
    assert toy.run("demo", "--force") == 0
    assert toy.bytes() == expected


def test_a_killed_worker_costs_nothing(fresh_toy):
    fresh_toy.set_param("workers: 0", "workers: 2")
    (fresh_toy.root / "kill-shard-00001").touch()
    assert fresh_toy.run("materialize", "numbers") == 0
    assert not (fresh_toy.root / "kill-shard-00001").exists()
    assert not list(fresh_toy.root.rglob("data/numbers/.tmp-*")), "what it left is removed"
    assert fresh_toy.pipeline.stale() == ["squares", "total"]


def test_the_shard_that_fails_is_shown_as_failed_and_the_others_as_made(fresh_toy, capsys):
    (fresh_toy.root / "fail-shard-00002").touch()
    assert fresh_toy.run("materialize", "numbers") == 1
    assert "shard-00002 cannot be made" in capsys.readouterr().out
    definition = shard_partitions(fresh_toy.pipeline.shards)
    with instance_of(fresh_toy) as instance:
        states = instance.get_status_by_partition(
            dg.AssetKey("numbers"), fresh_toy.pipeline.shards, definition
        )
        names = {shard: state.name for shard, state in states.items() if state}
        assert names.pop("shard-00002") == "FAILED"
        assert {"shard-00000", "shard-00001"} <= set(names)
        assert set(names.values()) == {"MATERIALIZED"}
    (fresh_toy.root / "fail-shard-00002").unlink()
    fresh_toy.made()
    assert fresh_toy.run("materialize", "numbers") == 0
    assert "numbers shard-00000" not in fresh_toy.made()


@pytest.mark.rehearsal
def test_a_killed_run_resumes_where_it_stopped(fresh_toy):
    fresh_toy.set_param("seconds: 0.0", "seconds: 0.4")
    process = fresh_toy.popen("demo")
    first = fresh_toy.root / "data/numbers/shard-00000.json"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.05)
    loaded = Path(f"/proc/{process.pid}/maps")
    assert "_raylet" not in loaded.read_text(), "Ray is imported though it is not the engine"
    process.kill()
    process.wait()
    fresh_toy.made()
    assert fresh_toy.run("demo") == 0
    assert "numbers shard-00000" not in fresh_toy.made()
    with instance_of(fresh_toy) as instance:
        killed = instance.get_runs()[-1]
        assert killed.status == dg.DagsterRunStatus.FAILURE
    resumed = fresh_toy.bytes()
    assert fresh_toy.run("demo", "--force") == 0
    assert fresh_toy.bytes() == resumed


def test_an_altered_shard_blocks_all_that_follows(toy, capsys):
    path = toy.root / "data/numbers/shard-00001.parquet"
    frame = pd.read_parquet(path)
    frame.loc[2, "value"] = 1000
    frame.to_parquet(path)
    before = toy.pipeline.bridge.locked()
    toy.made()
    assert toy.run("demo") == 1
    out = capsys.readouterr().out
    assert "shard-00001 row 2: value = 1000" in out
    assert "data/numbers/shard-00001.parquet" in out
    assert toy.made() == []
    assert toy.pipeline.bridge.locked() == before
    assert toy.run("materialize", "squares") == 1
    assert "its input from 'numbers' differs" in capsys.readouterr().out
    assert toy.run("check") == 1
    assert "shard-00001 row 2: value = 1000" in capsys.readouterr().out
    assert toy.run("materialize", "numbers", "--shard", "shard-00001", "--force") == 0
    assert toy.made() == ["numbers shard-00001"]
    assert toy.run("demo") == 0
    assert toy.pipeline.bridge.locked() == before
    with instance_of(toy) as instance:
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("numbers"), "numbers__value_in_range"), limit=20
        )
    assert {"FAILED", "SUCCEEDED"} <= {record.status.value for record in history}


def test_a_run_reads_what_changed_and_an_audit_reads_all(toy):
    """A byte changed behind the back of time, size and inode: only an audit can see it."""
    units, name = toy.pipeline.shards, "data/numbers/shard-00001.parquet"
    path = toy.root / name
    assert toy.pipeline.altered("numbers", units) == []
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-20, 2)
        byte = file.read(1)
        file.seek(-20, 2)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert toy.pipeline.altered("numbers", units) == [], "it was not read again"
    assert toy.pipeline.altered("numbers", units, audit=True) == [name]
    path.touch()
    assert toy.pipeline.altered("numbers", units) == [name]
    path.unlink()
    assert toy.pipeline.altered("numbers", units) == [name]


def test_one_shard_is_made_and_not_recorded(fresh_toy, capsys):
    assert fresh_toy.run("materialize", "numbers", "--shard", "shard-00002") == 0
    assert fresh_toy.made() == ["numbers shard-00002"]
    assert "not recorded" in capsys.readouterr().out
    assert fresh_toy.run("materialize", "squares", "--shard", "shard-00002") == 0
    assert fresh_toy.made() == ["squares shard-00002"]
    assert fresh_toy.run("materialize", "squares", "--shard", "shard-00001") == 1
    assert fresh_toy.pipeline.bridge.locked() == {}
    assert fresh_toy.run("materialize", "numbers", "--shard", "nonsense") == 2


def test_data_that_came_by_dvc_is_reported_to_dagster(toy):
    lock = (toy.root / "dvc.lock").read_text()
    toy.set_param("power: 2", "power: 3")
    toy.run("demo")
    assert toy.run("sync") == 0
    # As `git checkout` of an older state does.
    (toy.root / "dvc.lock").write_text(lock)
    toy.set_param("power: 3", "power: 2")
    from dagster_project.sync import DvcSync

    with instance_of(toy) as instance:
        assert DvcSync(toy.pipeline).unknown(instance) == [], "the data is not there yet"
        toy.dvc("checkout")
        events = DvcSync(toy.pipeline).unknown(instance)
        assert {event.asset_key.to_user_string() for event in events} == {"squares", "total"}
        for event in events:
            instance.report_runless_asset_event(event)
        assert DvcSync(toy.pipeline).unknown(instance) == []


def test_a_wrong_key_is_named(toy, capsys):
    toy.set_param("power: 2", "power: 2, pwoer: 3")
    assert toy.run("demo") == 1
    assert "squares.pwoer" in capsys.readouterr().out
    toy.set_param("power: 2, pwoer: 3", "")
    assert toy.run("demo") == 0, "a value that is left out is its default"


def test_markers_say_what_was_made(toy):
    marker = json.loads((toy.root / "data/numbers/shard-00000.json").read_text())
    assert list(marker["files"]) == ["data/numbers/shard-00000.parquet"]
    assert (marker["num_in"], marker["num_out"], marker["num_excluded"]) == (4, 4, 0)


def test_a_run_without_partitions_says_what_to_do(toy):
    job = build_definitions(toy.pipeline).resolve_job_def(DEMO_JOB)
    with instance_of(toy) as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    failures = [event for event in result.all_events if event.is_step_failure]
    told = [str(event.step_failure_data.user_failure_data.description) for event in failures]
    assert len(told) == 1
    assert "numbers: this run names no partitions" in told[0]
    assert "choose 'Materialize'" in told[0]


def test_folders_that_a_killed_writer_left_block_nothing(toy):
    left = toy.root / "data" / "numbers" / ".tmp-123-model"
    (left / "inner").mkdir(parents=True)
    (left / "weights").write_text("half")
    assert toy.run("materialize", "numbers", "--force") == 0
    assert not left.exists()


def test_checks_alone_judge_what_is_on_disk(toy):
    """What "Execute" on the page of a check does: no partition, no materialisation."""
    path = toy.root / "data/numbers/shard-00001.parquet"
    frame = pd.read_parquet(path)
    frame.loc[2, "value"] = 1000
    frame.to_parquet(path)
    key = dg.AssetCheckKey(dg.AssetKey("numbers"), "numbers__value_in_range")
    selection = dg.AssetSelection.checks(key)
    definitions = dg.Definitions.merge(
        build_definitions(toy.pipeline),
        dg.Definitions(jobs=[dg.define_asset_job("one_check", selection=selection)]),
    )
    toy.made()
    with instance_of(toy) as instance:
        job = definitions.resolve_job_def("one_check")
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        (evaluation,) = result.get_asset_check_evaluations()
        assert evaluation.check_name == "numbers__value_in_range"
        assert not evaluation.passed
        assert "shard-00001 row 2: value = 1000" in evaluation.description
    assert result.asset_materializations_for_node("numbers") == []
    assert toy.made() == []


def test_checks_of_nothing_do_not_pass(fresh_toy, capsys):
    assert fresh_toy.run("check") == 1
    said = capsys.readouterr().out
    assert "not judged" in said
    assert "pass" not in said
