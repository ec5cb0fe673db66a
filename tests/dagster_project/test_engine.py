"""The shard queue with fake workers: assignment of shards, and lost workers."""

import os
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from dagster_project import launch, local_workers
from dagster_project.engine import (
    MAX_ATTEMPTS,
    Done,
    EngineError,
    Failed,
    Lost,
    Ready,
    ShardTask,
    WorkerLostError,
    make_shards,
)
from dagster_project.local_workers import assign_devices, open_local
from dagster_project.locks import ShardLocks, StageLock
from dagster_project.placement import WorkerConfig
from ml.records.config import ConfigError, read_config
from ml.records.report import StageReport
from tests.fixtures.worker_tasks import Environment, Unloadable


@dataclass(frozen=True)
class Worker:
    node: str
    number: int


class ScriptedWorkers:
    """Workers on given nodes; `fate(shard, node, attempt)` says what becomes of a task."""

    def __init__(self, nodes, fate):
        self.nodes, self.fate = list(nodes), fate
        self.events, self.log, self.attempts = [], [], {}
        self.closed = None

    def start(self):
        if self.nodes:
            node = self.nodes.pop(0)
            worker = Worker(node, len(self.nodes))
            self.events.insert(0, Ready(worker, node))  # before what is still being made

    def submit(self, worker, task):
        attempt = self.attempts[task.shard] = self.attempts.get(task.shard, 0) + 1
        self.log.append((task.shard, worker.node))
        what = self.fate(task.shard, worker.node, attempt)
        if what == "done":
            self.events.append(Done(worker, StageReport(1, 1)))
        elif isinstance(what, Exception):
            self.events.append(Failed(worker, what))
        else:
            self.events.append(Lost(worker, with_node=what == "node", why="told to"))

    def wait(self):
        assert self.events, "the queue waits for nothing"
        return [self.events.pop(0)]

    def close(self, *, finished):
        self.closed = finished


def tasks(count):
    return [ShardTask("none:none", None, None, f"s{i}") for i in range(count)]


def test_every_shard_is_made_once():
    workers = ScriptedWorkers(["a", "b"], lambda *_: "done")
    made = [shard for shard, _ in make_shards(tasks(5), workers, 2)]
    assert sorted(made) == [f"s{i}" for i in range(5)]
    assert workers.closed is True


def test_a_lost_shard_goes_to_another_node_and_only_it_counts():
    def fate(shard, node, attempt):
        return "worker" if shard == "s0" and node == "b" else "done"

    workers = ScriptedWorkers(["a", "b", "b", "b"], fate)
    made = [shard for shard, _ in make_shards(tasks(6), workers, 2)]
    assert sorted(made) == [f"s{i}" for i in range(6)]
    places = [node for shard, node in workers.log if shard == "s0"]
    assert places == ["b", "a"], "the new worker on b was there first, and got another shard"
    assert [n for s, n in workers.attempts.items() if s != "s0"] == [1] * 5


def test_a_shard_that_kills_its_workers_is_named_and_the_rest_is_finished():
    workers = ScriptedWorkers(["a"] * 10, lambda s, *_: "worker" if s == "s0" else "done")
    made = []
    with pytest.raises(WorkerLostError, match=r"^s0: lost the worker 3 times"):
        for shard, _ in make_shards(tasks(4), workers, 2):
            made.append(shard)
    assert sorted(made) == ["s1", "s2", "s3"]
    assert workers.attempts["s0"] == MAX_ATTEMPTS
    assert workers.closed is False


def test_a_lost_node_is_no_fault_of_the_shard():
    losses = MAX_ATTEMPTS + 2

    def fate(shard, node, attempt):
        return "node" if shard == "s0" and attempt <= losses else "done"

    workers = ScriptedWorkers([f"n{i}" for i in range(losses + 2)], fate)
    made = [shard for shard, _ in make_shards(tasks(2), workers, 1)]
    assert sorted(made) == ["s0", "s1"]
    assert workers.attempts["s0"] == losses + 1


def test_an_error_of_the_stage_ends_the_workers():
    workers = ScriptedWorkers(["a"], lambda *_: ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        list(make_shards(tasks(3), workers, 1))
    assert workers.closed is False


def test_a_task_is_taken_when_a_worker_is_there_for_it():
    taken = []

    def lazily():
        for task in tasks(4):
            taken.append(task.shard)
            yield task

    workers = ScriptedWorkers(["a"], lambda *_: "done")
    made = make_shards(lazily(), workers, 1)
    next(made)
    assert taken == ["s0"]
    made.close()
    assert workers.closed is False, "an abandoned queue leaves nothing running"


@pytest.mark.parametrize(
    ("devices", "number", "gpus", "expected"),
    [
        ("", 2, None, [None, None]),
        ("01", 3, None, ["0", "1", "0"]),
        ("01", 4, 1, ["0", "1"]),
        ("01", 5, 0.5, ["0", "0", "1", "1"]),
        ("0", 9, 0.25, ["0"] * 4),
        ("0123", 4, 2, ["0,1", "2,3"]),
        ("01", 2, 0, ["", ""]),
        ("", 2, 0, [None, None]),
    ],
)
def test_devices_of_workers(devices, number, gpus, expected):
    assert assign_devices(list(devices), number, gpus) == expected


def test_too_few_devices_are_refused_with_what_to_do():
    with pytest.raises(EngineError, match="2 CUDA devices, and this machine has 1"):
        assign_devices(["0"], 2, 2)


def test_workers_see_their_own_device_and_environment(monkeypatch):
    monkeypatch.setattr(local_workers, "cuda_devices", lambda: ["GPU-a", "GPU-b"])
    resources = WorkerConfig(num_gpus=1, environment={"GREETING": "hello"})
    workers, number = open_local(resources, 3)
    assert number == 2, "there are two devices"
    try:
        for slot in range(2):
            workers.submit(slot, Environment())
        reports = [event.report for _ in range(2) for event in _one(workers)]
    finally:
        workers.close(finished=True)
    assert sorted(reports) == [
        ("GPU-a", "hello", "1"),
        ("GPU-b", "hello", "1"),
    ]
    assert "GREETING" not in os.environ


def test_a_worker_that_cannot_load_its_libraries_says_so():
    workers, _ = open_local(WorkerConfig(), 1)
    workers.start()
    workers.wait()
    try:
        workers.submit(0, Unloadable())
        (event,) = workers.wait()
    finally:
        workers.close(finished=False)
    assert isinstance(event, Failed)
    assert "no_such_library" in str(event.error)


def test_a_stage_without_memory_says_what_to_do():
    for name, message in (
        ("MemoryError", "MemoryError: "),
        ("_ArrayMemoryError", "numpy._core._exceptions._ArrayMemoryError: Unable to allocate"),
        ("ImportError", "ImportError: libx.so: failed to map segment from shared object"),
        ("SystemError", "SystemError: error return without exception set"),
    ):
        assert "fewer workers" in told_of(name, message)
        assert len(told_of(name, message).splitlines()) == 1
    # pandas says of a numpy that does not load that it is not there; a worker's traceback says why.
    hidden = "ImportError: Unable to import required dependency numpy."
    remote = failure("_RemoteTraceback", '"""\nImportError: libx.so: failed to map segment\n"""')
    assert "fewer workers" in told_of("ImportError", hidden, cause=remote)
    raised = failure("_RemoteTraceback", "Traceback\n  x()\nMemoryError\n\nThe above exception")
    assert "fewer workers" in told_of("RuntimeError", "no result", cause=raised)
    named = failure("_RemoteTraceback", "  raise_on(MemoryError)\nKeyError: 'x'")
    assert told_of("KeyError", "KeyError: 'x'", cause=named) == "poses failed: KeyError: 'x'\ny"


def failure(name, message, cause=None):
    return SimpleNamespace(cls_name=name, message=message, cause=cause, context=None, stack=["y"])


def told_of(name, message, cause=None):
    data = SimpleNamespace(user_failure_data=None, error=failure(name, message, cause))
    return launch._failure(SimpleNamespace(step_failure_data=data, step_key="poses"))


def _one(workers):
    return [event for event in workers.wait() if isinstance(event, Done)][:1]


def test_devices_come_from_the_environment_first(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-1")
    assert local_workers.cuda_devices() == ["3", "GPU-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_workers.cuda_devices() == []


def test_what_results_depend_on_is_not_configured():
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS are set for every worker"):
        read_config(WorkerConfig, "run.resources.images", {"environment": {"OMP_NUM_THREADS": "8"}})
    with pytest.raises(ConfigError, match=r"must be whole, got 1\.5"):
        read_config(WorkerConfig, "run.resources.images", {"num_gpus": 1.5})


def test_shards_are_locked_one_by_one(tmp_path):
    ours, theirs = ShardLocks(tmp_path, "images"), ShardLocks(tmp_path, "images")
    assert ours.take("s0")
    assert not theirs.take("s0")
    assert theirs.take("s1"), "another shard of the same stage is free"
    ours.release_all()
    assert theirs.take("s0")
    theirs.release_all()


def test_a_stage_is_tidied_only_when_nobody_makes_shards(tmp_path):
    first, second = StageLock(tmp_path, "images"), StageLock(tmp_path, "images")
    with first.shared():
        with second.shared(), second.alone_at_once() as alone:
            assert not alone
        with second.alone_at_once() as alone:
            assert not alone
    with second.alone_at_once() as alone:
        assert alone
