"""The toy pipeline on a real Ray cluster: same bytes, lost nodes, lost workers, Ctrl-C.

What starts several runs on the cluster, or kills its nodes, is a rehearsal: each actor is a new
interpreter that loads the libraries again.
"""

import importlib.util
import signal
import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest

from dagster_project import ray_workers
from dagster_project.engine import EngineError
from dagster_project.placement import RayConfig, WorkerConfig
from tests.fixtures.worker_tasks import Environment

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (extra `ray`)")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def on_ray(cluster, fresh_toy):
    """The toy project, told to use the cluster."""
    import ray

    fresh_toy.set_param(
        "workers: 0", f"workers: 2, engine: ray, ray: {{address: '{cluster.address}'}}"
    )
    yield fresh_toy
    ray.shutdown()


def data_of(toy):
    return {name: data for name, data in toy.bytes().items() if not name.startswith("total")}


@pytest.mark.rehearsal
@needs_ray
def test_the_bytes_are_those_of_one_process_and_nodes_are_named(on_ray, made_template):
    assert on_ray.run("demo") == 0
    data = made_template / "data"
    expected = {
        str(p.relative_to(data)): p.read_bytes()
        for p in sorted(data.rglob("*"))
        if p.is_file() and ".work" not in p.parts
    }
    assert on_ray.bytes() == expected
    with dg.DagsterInstance.from_config(str(on_ray.root / ".dagster")) as instance:
        records = instance.fetch_materializations(dg.AssetKey("numbers"), limit=9).records
    made_on = {r.asset_materialization.metadata["made on"].value for r in records}
    nodes = {place.split(", ")[1] for place in made_on}
    assert len(records) == 3
    assert all(node.startswith("node ") for node in nodes)


@pytest.mark.rehearsal
@needs_ray
def test_a_shard_that_kills_its_worker_once_is_made_by_another(on_ray, capfd):
    (on_ray.root / "kill-shard-00001").touch()
    assert on_ray.run("materialize", "numbers") == 0
    assert "shard-00001 starts again" in capfd.readouterr().out
    assert on_ray.pipeline.stale() == ["squares", "total"]


@pytest.mark.rehearsal
@needs_ray
def test_a_lost_node_costs_only_time(cluster, on_ray):
    node = cluster.add_node(num_cpus=1)
    on_ray.set_param("seconds: 0.0", "seconds: 1.0")
    on_ray.set_param("num_shards: 3", "num_shards: 8")
    on_ray.set_param("workers: 2", "workers: 3")
    process = on_ray.popen("materialize", "numbers", stdout=subprocess.PIPE, text=True)
    wait_for(lambda: len(started(on_ray)) >= 3, process)
    cluster.remove_node(node, allow_graceful=False)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "was lost" in output
    assert on_ray.pipeline.unfinished("numbers", on_ray.pipeline.shards) == []


@pytest.mark.rehearsal
@needs_ray
def test_an_interrupt_leaves_nothing_running(on_ray):
    on_ray.set_param("seconds: 0.0", "seconds: 600.0")
    process = on_ray.popen("materialize", "numbers")
    wait_for(lambda: len(started(on_ray)) >= 2, process)
    pids = started(on_ray)
    assert all(psutil.pid_exists(pid) for pid in pids)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 20)
    assert not alive, "actors ran on"


@needs_ray
def test_a_cluster_without_room_is_named(cluster, tmp_path):
    import ray

    (tmp_path / "dvc.yaml").touch()
    asked = WorkerConfig(num_cpus=64)
    config = RayConfig(address=cluster.address, start_seconds=1)
    workers = ray_workers.RayWorkers(tmp_path, config, asked, "numbers")
    workers._wait_seconds = 1.5
    workers.start()
    with pytest.raises(EngineError, match=r"stage numbers .* asks for num_cpus 64, the largest"):
        workers.wait()
    workers.close(finished=False)
    ray.shutdown()


@pytest.fixture
def machine(tmp_path):
    """A node with two devices that Ray is told of; the cluster of the other tests has none."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 5, "num_gpus": 2, "memory": 8 << 30}
    )
    (tmp_path / "dvc.yaml").touch()
    yield RayConfig(address=cluster.address, start_seconds=2)
    ray.shutdown()
    cluster.shutdown()


def ready(workers, count):
    """The next workers that start."""
    found = []
    while len(found) < count:
        found += [event.worker for event in workers.wait()]
    return found


@pytest.mark.rehearsal
@needs_ray
def test_resources_of_a_stage_reach_its_actors(machine, tmp_path):
    """Two actors share each device, a fifth waits for one; all see the stage's variables."""
    asked = WorkerConfig(num_gpus=0.5, num_cpus=1, memory_gib=1, environment={"GREETING": "hello"})
    workers = ray_workers.RayWorkers(tmp_path, machine, asked, "images")
    for _ in range(5):
        workers.start()
    actors = ready(workers, 4)
    workers._wait_seconds = 3.0
    assert workers.wait() == [], "there is no room for a fifth"
    free = workers._ray.available_resources()
    assert (free.get("GPU", 0), free["CPU"], free["memory"]) == (0, 1, 4 << 30)
    for actor in actors:
        workers.submit(actor, Environment())
    found = []
    while len(found) < 4:
        found += [event.report for event in workers.wait()]
    assert sorted(device for device, *_ in found) == ["0", "0", "1", "1"]
    assert {tuple(rest) for _, *rest in found} == {("hello", "1")}
    workers.close(finished=False)


@pytest.mark.rehearsal
@needs_ray
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"memory_gib": 4000}, "num_cpus 1, memory_gib 4000.0, the .* num_cpus 5, memory_gib 8.0"),
        ({"num_gpus": 3}, "num_cpus 1, num_gpus 3, the largest node has num_cpus 5, num_gpus 2"),
    ],
)
def test_more_than_a_node_has_is_refused_by_stage_and_amount(machine, tmp_path, asked, message):
    workers = ray_workers.RayWorkers(tmp_path, machine, WorkerConfig(**asked), "images")
    workers._wait_seconds = 2.5
    workers.start()
    with pytest.raises(EngineError, match=f"the stage images .* {message}.* run.resources.images"):
        workers.wait()
    workers.close(finished=False)


def test_a_node_with_other_code_is_refused(monkeypatch):
    workers = object.__new__(ray_workers.RayWorkers)
    found = {"project folder": "seen", **ray_workers.versions()}
    workers._require_equal("n" * 56, found)
    with pytest.raises(EngineError, match=r"would not make the same bytes.*code: expected"):
        workers._require_equal("n" * 56, {**found, "code": "another"})
    with pytest.raises(EngineError, match="project folder: expected seen, got /x is not there"):
        workers._require_equal("n" * 56, {**found, "project folder": "/x is not there"})


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match="install the extra"):
        ray_workers.connect("auto")


def started(toy):
    log = toy.root / "started.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[1]) for line in lines]


def wait_for(condition, process, seconds=400):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)
