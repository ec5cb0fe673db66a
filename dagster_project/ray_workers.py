"""Workers of a Ray cluster: actors that load a stage's models once and keep them.

Nothing else imports ray. The project folder has to be seen by all nodes under the same path (a
shared file system), and all have to run the same code and library versions; each actor is asked
before it gets work.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import cache
from pathlib import Path
from typing import Any, Final

import ml
from dagster_project.console import say
from dagster_project.engine import Done, EngineError, Event, Failed, Lost, Ready, ShardTask
from dagster_project.graph import code_hash
from dagster_project.placement import ONE_THREAD, RayConfig, WorkerConfig
from ml.records.report import StageReport

_LIBRARIES: Final = (
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "opencv-python-headless",
    "scipy",
    "numba",
)
"""Libraries whose version may change a byte."""
_WAIT_SECONDS: Final = 15.0
_NODE_SECONDS: Final = 20.0
"""Longest wait for Ray to notice that an unreachable actor's node is gone."""
_MAX_FAILED_STARTS: Final = 3
"""So many workers in a row that do not start are no accident."""


class ShardActor:
    """Processes shards in the cluster; caches of the stage's function live in this process."""

    def __init__(self) -> None:
        """Log errors alone; Ray shows them on the driver's terminal."""
        logging.basicConfig(level=logging.ERROR)

    def hello(self, root: str) -> tuple[str, dict[str, str]]:
        """Return the id of the node, and the versions that may change a byte.

        Args:
            root: the project folder.
        """
        return _node_id(), {"project folder": _seen(root), **versions()}

    def run(self, task: ShardTask) -> StageReport:
        """Make a shard."""
        return task.run(f"node {_node_id()[:8]}")


def versions() -> dict[str, str]:
    """Return versions of Python and of libraries that may change a byte, and our code's hash."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    found.update({name: importlib.metadata.version(name) for name in _LIBRARIES})
    found["code"] = _code()
    return found


@cache
def _code() -> str:
    return code_hash(Path(ml.__file__).parents[1], ["ml"])[:16]


def _import_path() -> str:
    """Return where this process imports from, but for installed packages.

    Absent folders do no harm.
    """
    folders = [str(Path(entry).resolve()) for entry in sys.path]
    own = [folder for folder in folders if not folder.startswith((sys.prefix, sys.base_prefix))]
    return os.pathsep.join(dict.fromkeys(own))


def _seen(root: str) -> str:
    return "seen" if (Path(root) / "dvc.yaml").is_file() else f"{root} is not there"


def _node_id() -> str:
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    return node


class RayWorkers:
    """Actors for one stage; they are killed when the stage ends, so that others get their GPUs."""

    def __init__(self, root: Path, cluster: RayConfig, resources: WorkerConfig, stage: str) -> None:
        """Join the cluster.

        Args:
            root: the project folder.
            cluster: which cluster.
            resources: resources of an actor.
            stage: whose shards they make, for messages.

        Raises:
            EngineError: ray is not installed, or the cluster cannot be reached.
        """
        self._root, self._cluster, self._stage = root, cluster, stage
        self._ray = connect(cluster.address)
        self._asked = {
            "num_cpus": resources.num_cpus,
            "num_gpus": resources.num_gpus or 0,
            "memory": int(resources.memory_gib * 2**30),
        }
        self._class = self._ray.remote(
            **self._asked,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={
                "env_vars": {**resources.environment, **ONE_THREAD, "PYTHONPATH": _import_path()}
            },
        )(ShardActor)
        # Futures and not Ray's own waiting, which a signal can end with a SystemError (2.60).
        self._starting: dict[Future[Any], Any] = {}
        self._flying: dict[Future[Any], Any] = {}
        self._nodes: dict[Any, str] = {}
        self._failed_starts = 0
        self._wait_seconds = _WAIT_SECONDS
        self._since = time.monotonic()

    def start(self) -> None:
        """Ask for an actor; it starts when the cluster has room for it."""
        actor = self._class.remote()
        self._starting[actor.hello.remote(str(self._root)).future()] = actor

    def submit(self, worker: Hashable, task: ShardTask) -> None:
        """Give a task to an actor."""
        self._flying[worker.run.remote(task).future()] = worker  # type: ignore[attr-defined]

    def wait(self) -> Sequence[Event]:
        """Wait for an actor to start, finish or die; says so when there is none.

        Raises:
            EngineError: no actor starts, or one runs on other versions than this process.
        """
        waited_for = [*self._starting, *self._flying]
        done, _ = wait(waited_for, self._wait_seconds, FIRST_COMPLETED)
        if not done:
            self._check_patience()
        return [event for future in done for event in self._events(future)]

    def close(self, *, finished: bool) -> None:
        """Kill all actors, busy or not."""
        for actor in {*self._nodes, *self._starting.values()}:
            self._ray.kill(actor)

    def _events(self, future: Future[Any]) -> list[Event]:
        if future in self._starting:
            return self._started(self._starting.pop(future), future)
        actor = self._flying.pop(future)
        errors = self._ray.exceptions
        try:
            return [Done(actor, future.result())]
        except errors.RayTaskError as error:
            return [Failed(actor, error.cause or error)]
        except errors.RayError as error:
            return [self._lost(actor, error)]

    def _started(self, actor: Any, future: Future[Any]) -> list[Event]:
        try:
            node, found = future.result()
        except self._ray.exceptions.RayTaskError as error:
            raise EngineError(f"a Ray worker cannot run this project: {error.cause}") from error
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise EngineError(
                    f"{self._failed_starts} Ray workers in a row did not start, the last one: "
                    f"{_first_line(error)}"
                ) from error
            self._nodes[actor] = ""
            return [self._lost(actor, error)]
        self._require_equal(node, found)
        self._failed_starts, self._nodes[actor] = 0, node
        return [Ready(actor, node)]

    def _require_equal(self, node: str, found: dict[str, str]) -> None:
        """Check that a node would give the same bytes."""
        expected = {"project folder": "seen", **versions()}
        differing = [
            f"{name}: expected {expected[name]}, got {found.get(name)}"
            for name in expected
            if found.get(name) != expected[name]
        ]
        if differing:
            raise EngineError(
                f"Ray node {node[:8]} would not make the same bytes as this process "
                f"({'; '.join(differing)}); give all nodes the same image or environment, and the "
                "project folder under the same path"
            )

    def _lost(self, actor: Any, error: Exception) -> Lost:
        """Return the fate of an actor that no longer answers.

        It is killed in case it still lives.
        """
        node = self._nodes.pop(actor)
        self._ray.kill(actor)
        # Ray notices unreachable actors before it notices the lost node.
        patience = _NODE_SECONDS if _is_unreachable(self._ray, error) else 0.0
        return Lost(actor, self._has_lost(node, patience), _first_line(error))

    def _has_lost(self, node: str, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while True:
            alive = {one["NodeID"] for one in self._ray.nodes() if one["Alive"]}
            if node not in alive or time.monotonic() >= deadline:
                return node not in alive
            time.sleep(0.25)

    def _check_patience(self) -> None:
        """Report what a run waits for when nothing runs; give up after the configured time."""
        if self._flying or self._nodes:
            self._since = time.monotonic()
            return
        waited = time.monotonic() - self._since
        asked, have = (
            self._described({name: value for name, value in self._asked.items() if value}),
            self._described(self._largest()),
        )
        text = (
            f"for {waited:.0f} s no Ray worker of the stage {self._stage} has started: each asks "
            f"for {asked}, the largest node has {have}"
        )
        if waited >= self._cluster.start_seconds:
            raise EngineError(
                f"{text}; add nodes or lower run.resources.{self._stage} (num_cpus, num_gpus, "
                "memory_gib)"
            )
        say(text)

    def _largest(self) -> dict[str, float]:
        """Return the most that a node has, used or not, of each resource that is asked for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return {
            name: max((node.get(_RAY_NAMES[name], 0.0) for node in nodes), default=0.0)
            for name, value in self._asked.items()
            if value
        }

    @staticmethod
    def _described(amounts: Mapping[str, float]) -> str:
        """Return amounts in the names and units of params.yaml."""
        texts = [
            f"memory_gib {value / 2**30:.1f}" if name == "memory" else f"{name} {value:g}"
            for name, value in amounts.items()
        ]
        return ", ".join(texts) or "nothing"


_RAY_NAMES: Final = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


def connect(address: str) -> Any:
    """Return the ray module, connected.

    Args:
        address: as `RayConfig.address`.

    Raises:
        EngineError: ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            "run.engine is ray, and ray is not installed: install the extra, `pip install "
            "'vggheads[ray]'`, or set run.engine to local"
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EngineError(
                f"no Ray cluster at run.ray.address {address!r} ({_first_line(error)}); start one "
                "with `ray start --head`, or set the address to local"
            ) from error
    return ray


def _is_unreachable(ray: Any, error: Exception) -> bool:
    return isinstance(error, ray.exceptions.ActorUnavailableError)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
