"""Makes shards: in this process, or in a pool of processes that survives a killed worker."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_any
from typing import Any

from dagster_project.stage import load
from ml.records.config import StageConfig
from ml.records.report import StageReport
from ml.records.workspace import Workspace

logger = logging.getLogger(__name__)

#: How often a shard may lose its worker before the stage fails.
MAX_ATTEMPTS = 3
#: A worker computes on one thread whatever the number of workers: sums depend on it.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class WorkerLostError(RuntimeError):
    """A shard killed its worker again and again."""


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

    def run(self) -> StageReport:
        """Make the shard."""
        return load(self.function)(self.ws, self.config, self.shard)


class _Pool:
    """The one process pool of this process; kept between stages, so that imports are paid once."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self._workers = 0

    def get(self, workers: int) -> ProcessPoolExecutor:
        if self._executor is None or self._workers != workers:
            self.close()
            self._executor = ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn"), initializer=_start_worker
            )
            self._workers = workers
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


_POOL = _Pool()
atexit.register(_POOL.close)


def make_shards(tasks: Sequence[ShardTask], workers: int) -> Iterator[tuple[str, StageReport]]:
    """Make shards and yield each one's report as it is finished.

    Args:
        tasks: the shards.
        workers: processes; 0 makes them in this process, one after the other.

    Raises:
        WorkerLostError: a shard lost its worker `MAX_ATTEMPTS` times.
    """
    if workers == 0:
        for task in tasks:
            yield task.shard, task.run()
        return
    attempts = {task.shard: 0 for task in tasks}
    todo = list(tasks)
    while todo:
        lost: list[ShardTask] = []
        for task, future in _finished(todo, workers):
            try:
                yield task.shard, future.result()
            except BrokenProcessPool:
                lost.append(task)
        if lost:
            _count_attempts(lost, attempts)
        todo = lost


def _count_attempts(lost: Sequence[ShardTask], attempts: dict[str, int]) -> None:
    """A broken pool loses all its shards, guilty or not; all of them go back."""
    for task in lost:
        attempts[task.shard] += 1
        if attempts[task.shard] >= MAX_ATTEMPTS:
            raise WorkerLostError(
                f"{task.function}: shard {task.shard} lost its worker process "
                f"{MAX_ATTEMPTS} times; is memory short?"
            )
    logger.warning("a worker process died; %d shards start again", len(lost))


def _finished(
    tasks: Sequence[ShardTask], workers: int
) -> Iterator[tuple[ShardTask, Future[StageReport]]]:
    """Submit tasks and yield them as they finish or fail; on an error the rest is cancelled."""
    waiting: dict[Future[StageReport], ShardTask] = {}
    queue = list(tasks)
    try:
        while queue or waiting:
            # Few at a time: after a lost worker only those in flight count as attempts.
            while queue and len(waiting) < workers:
                task = queue.pop(0)
                waiting[_submit(task, workers)] = task
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future
    finally:
        for future in waiting:
            future.cancel()


def _submit(task: ShardTask, workers: int) -> Future[StageReport]:
    """Give a task to the pool; processes start here and inherit one-thread settings."""
    saved = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        try:
            return _POOL.get(workers).submit(task.run)
        except BrokenProcessPool:
            _POOL.close()
            return _POOL.get(workers).submit(task.run)
    finally:
        _restore(saved)


def _restore(saved: dict[str, str | None]) -> None:
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _start_worker() -> None:
    """Quiet a new worker, and let it end when its parent is killed."""
    logging.basicConfig(level=logging.ERROR)
    # Ctrl-C reaches the whole process group; the parent decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: Any) -> None:
    """Wait for the parent's end; a worker left alone would wait for work for ever."""
    wait_for_any([sentinel])
    os._exit(1)
