"""The shard queue: shard tasks in, (shard, report) out, the same bytes from any worker.

    tasks -> queue -> workers of an engine (local processes, or actors of a Ray cluster) -> reports

An engine only starts workers, gives them tasks and reports their outcome. What a lost worker
means is decided here, once for all engines.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dagster_project.console import say
from dagster_project.stage import load
from ml.records.config import StageConfig
from ml.records.report import StageReport
from ml.records.workspace import Workspace

MAX_ATTEMPTS = 3
"""Lost workers of a shard after which it is abandoned."""
MAX_LOST_NODES = 20
"""Lost nodes of a shard after which it is abandoned; a lost node is not the shard's fault."""


class EngineError(RuntimeError):
    """The engine cannot do the work; the message gives cause and remedy."""


class WorkerLostError(EngineError):
    """Shards killed their workers again and again; all others are finished."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to make.

    Attributes:
        function: the stage's function, `module:name`.
        ws: the workspace, with the shard's fingerprint.
        config: the stage's configuration.
        shard: the shard's name.
    """

    function: str
    ws: Workspace
    config: StageConfig
    shard: str

    def run(self, node: str = "") -> StageReport:
        """Make the shard in this process.

        Args:
            node: name of the node in addition to the machine's, since two nodes may share a
                machine.

        Returns:
            The stage's report, with the place where it was made.
        """
        report: StageReport = load(self.function)(self.ws, self.config, self.shard)
        return dataclasses.replace(report, place=here(node))


def here(node: str = "") -> str:
    """Return machine, node, process and CUDA devices of the caller."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    parts = [socket.gethostname(), *([node] if node else []), f"process {os.getpid()}"]
    return ", ".join([*parts, f"CUDA device {devices}"] if devices else parts)


@dataclass(frozen=True)
class Ready:
    """A worker can take its first task; `node` is where it is."""

    worker: Hashable
    node: str


@dataclass(frozen=True)
class Done:
    """A worker has finished its shard."""

    worker: Hashable
    report: StageReport


@dataclass(frozen=True)
class Failed:
    """The stage's function raised."""

    worker: Hashable
    error: BaseException


@dataclass(frozen=True)
class Lost:
    """A worker is gone, with its node or alone."""

    worker: Hashable
    with_node: bool
    why: str


Event = Ready | Done | Failed | Lost


class Workers(Protocol):
    """The workers of one stage, as an engine provides them."""

    def start(self) -> None:
        """Request another worker; a `Ready` reports when it can be used."""

    def submit(self, worker: Hashable, task: ShardTask) -> None:
        """Give a task to a worker that has none."""

    def wait(self) -> Sequence[Event]:
        """Wait for events; may return none of them, so that the caller is not blocked."""

    def close(self, *, finished: bool) -> None:
        """Give the workers back; if not `finished`, nothing of them may run on."""


@dataclass
class _Attempt:
    """A task with its history."""

    task: ShardTask
    num_lost: int = 0
    num_lost_nodes: int = 0
    avoid: set[str] = field(default_factory=set)


def make_shards(
    tasks: Iterable[ShardTask], workers: Workers | None, num_workers: int
) -> Generator[tuple[str, StageReport], None, None]:
    """Process shards and yield each one's report as it is finished.

    A task is taken from `tasks` only when a worker is ready for it. A shard whose worker is lost
    goes back and is next made on another node, if there is one; one that has lost its worker
    `MAX_ATTEMPTS` times is given up, and the rest is finished before that is raised.

    Args:
        tasks: the shards.
        workers: the workers; None processes shards one by one in this process.
        num_workers: largest number of workers at the same time.

    Raises:
        WorkerLostError: shards were given up; names them.
    """
    if workers is None:
        for task in tasks:
            yield task.shard, task.run()
        return
    finished = False
    try:
        yield from _Queue(tasks, workers).run(num_workers)
        finished = True
    finally:
        workers.close(finished=finished)


class _Queue:
    """Assignment of shards to workers, and the remaining tasks."""

    def __init__(self, tasks: Iterable[ShardTask], workers: Workers) -> None:
        self._source = iter(tasks)
        self._exhausted = False
        self._workers = workers
        self._back: list[_Attempt] = []
        self._flying: dict[Hashable, _Attempt] = {}
        self._idle: list[Hashable] = []
        self._nodes: dict[Hashable, str] = {}
        self._given_up: list[str] = []

    def run(self, num_workers: int) -> Iterator[tuple[str, StageReport]]:
        for _ in range(num_workers):
            self._workers.start()
        while True:
            self._hand_out()
            if self._exhausted and not self._back and not self._flying:
                break
            for event in self._workers.wait():
                yield from self._take(event)
        if self._given_up:
            raise WorkerLostError(
                f"{', '.join(self._given_up)}: lost the worker {MAX_ATTEMPTS} times; if no memory "
                "is left, use fewer workers (run.workers in params.yaml). All other shards are "
                "finished; the same command tries these again"
            )

    def _hand_out(self) -> None:
        """Give a task to every idle worker that may have one."""
        waiting, self._idle = self._idle, []
        for worker in waiting:
            attempt = self._next(self._nodes[worker])
            if attempt is None:
                self._idle.append(worker)
            else:
                self._flying[worker] = attempt
                self._workers.submit(worker, attempt.task)

    def _next(self, node: str) -> _Attempt | None:
        """Return a worker's next task: returned ones first, unless they were lost on its node."""
        nodes = set(self._nodes.values())
        for attempt in self._back:
            if node not in attempt.avoid or nodes <= attempt.avoid:
                self._back.remove(attempt)
                return attempt
        if not self._exhausted:
            task = next(self._source, None)
            if task is not None:
                return _Attempt(task)
            self._exhausted = True
        return None

    def _take(self, event: Event) -> Iterator[tuple[str, StageReport]]:
        match event:
            case Ready(worker, node):
                self._nodes[worker] = node
                self._idle.append(worker)
            case Done(worker, report):
                attempt = self._flying.pop(worker)
                self._idle.append(worker)
                yield attempt.task.shard, report
            case Failed(worker, error):
                self._flying.pop(worker, None)
                raise error
            case Lost():
                self._lose(event)

    def _lose(self, lost: Lost) -> None:
        """Send the lost worker's shard back, and ask for another worker."""
        node = self._nodes.pop(lost.worker, "")
        if lost.worker in self._idle:
            self._idle.remove(lost.worker)
        attempt = self._flying.pop(lost.worker, None)
        if attempt is not None:
            self._send_back(attempt, node, lost)
        if not self._exhausted or len(self._back) > len(self._idle):
            self._workers.start()

    def _send_back(self, attempt: _Attempt, node: str, lost: Lost) -> None:
        shard = attempt.task.shard
        attempt.avoid.add(node)
        attempt.num_lost_nodes += lost.with_node
        attempt.num_lost += not lost.with_node
        if attempt.num_lost >= MAX_ATTEMPTS or attempt.num_lost_nodes >= MAX_LOST_NODES:
            say(f"{shard} lost its worker again ({lost.why}) and is abandoned; others continue")
            self._given_up.append(shard)
            return
        what = f"node {node} was lost" if lost.with_node else f"a worker on {node} was lost"
        say(f"{what} ({lost.why}); {shard} starts again")
        self._back.append(attempt)
