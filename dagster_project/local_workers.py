"""Local workers: processes that are reused by all stages, each with its own CUDA device."""

from __future__ import annotations

import atexit
import glob
import math
import multiprocessing
import os
import pickle
import socket
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

from dagster_project import worker_process
from dagster_project.engine import Done, EngineError, Event, Failed, Lost, Ready, ShardTask
from dagster_project.placement import ONE_THREAD, WorkerConfig
from ml.records.report import StageReport

DEVICES = "CUDA_VISIBLE_DEVICES"


def cuda_devices() -> list[str]:
    """Return the CUDA devices of this process, as `CUDA_VISIBLE_DEVICES` takes them."""
    if DEVICES in os.environ:
        return [name for name in os.environ[DEVICES].split(",") if name.strip()]
    if not glob.glob("/dev/nvidia[0-9]*") and not os.path.exists("/dev/dxg"):
        return []
    import torch  # takes seconds, so only where there is a driver

    return [str(index) for index in range(torch.cuda.device_count())]


def assign_devices(
    devices: Sequence[str], num_workers: int, num_gpus: float | None
) -> list[str | None]:
    """Return the value of `CUDA_VISIBLE_DEVICES` of each worker.

    Args:
        devices: names of the devices.
        num_workers: workers wanted.
        num_gpus: devices of a worker; below 1, several workers share one; None gives each worker
            one device, in turn, if there are any.

    Returns:
        For each worker its devices, or None where nothing is to be set; fewer than wanted when
        the devices are fewer.

    Raises:
        EngineError: there are fewer devices than one worker needs.
    """
    if num_gpus is None:
        return [devices[i % len(devices)] if devices else None for i in range(num_workers)]
    if num_gpus == 0:
        return ["" if devices else None] * num_workers
    if len(devices) < math.ceil(num_gpus):
        raise EngineError(
            f"a worker is to have {num_gpus:g} CUDA devices, and this machine has {len(devices)}; "
            "set run.resources.<stage>.num_gpus to 0, or run on a cluster (run.engine: ray)"
        )
    if num_gpus < 1:
        slots = [device for device in devices for _ in range(int(1 / num_gpus + 1e-9))]
    else:
        step = int(num_gpus)
        firsts = range(0, len(devices) - step + 1, step)
        slots = [",".join(devices[first : first + step]) for first in firsts]
    return list(slots[:num_workers])


class LocalWorkers:
    """Processes of this machine; each is an executor of its own, so that only one breaks."""

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        """Take over the processes of the stage before, if they are of the same kind.

        Args:
            environments: changes to this process's environment, per worker.
        """
        self._slots = _KEPT.take([dict(environment) for environment in environments])
        self._unused = list(range(len(self._slots.environments)))
        self._flying: dict[Future[StageReport], int] = {}
        self._events: list[Event] = []

    def start(self) -> None:
        """Do nothing: the process starts with its first task."""
        if self._unused:
            self._events.append(Ready(self._unused.pop(0), socket.gethostname()))

    def submit(self, worker: Hashable, task: ShardTask) -> None:
        """Give a task to a process, which is started if there is none."""
        assert isinstance(worker, int)
        self._flying[self._slots.submit(worker, task)] = worker

    def wait(self) -> Sequence[Event]:
        """Wait for a process to finish or die."""
        if self._events:
            events, self._events = self._events, []
            return events
        done, _ = wait(self._flying, return_when=FIRST_COMPLETED)
        return [self._event(future) for future in done]

    def close(self, *, finished: bool) -> None:
        """Keep the processes for the next stage; those at work are ended."""
        for slot in self._flying.values():
            self._slots.drop(slot)
        if not finished or any(DEVICES in one for one in self._slots.environments):
            # A reused process would keep its GPU memory.
            _KEPT.close()

    def _event(self, future: Future[StageReport]) -> Event:
        slot = self._flying.pop(future)
        error = future.exception()
        if error is None:
            return Done(slot, future.result())
        if not isinstance(error, BrokenProcessPool):
            return Failed(slot, error)
        self._slots.drop(slot)
        self._unused.append(slot)
        return Lost(slot, with_node=False, why="its process ended")


class _Slots:
    """Places for processes, with the processes that are there."""

    def __init__(self, environments: list[dict[str, str]]) -> None:
        self.environments = environments
        self._executors: dict[int, tuple[ProcessPoolExecutor, Connection]] = {}

    def submit(self, slot: int, task: ShardTask) -> Future[StageReport]:
        """Give a task to a process; it starts here and inherits its environment."""
        content = pickle.dumps(task)
        environment = {**ONE_THREAD, **self.environments[slot]}
        saved = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            try:
                return self._executor(slot).submit(worker_process.run, content)
            except BrokenProcessPool:
                # It was killed while it had nothing to do.
                self.drop(slot)
                return self._executor(slot).submit(worker_process.run, content)
        finally:
            _restore(saved)

    def _executor(self, slot: int) -> ProcessPoolExecutor:
        if slot not in self._executors:
            context = multiprocessing.get_context("spawn")
            lifeline, ours = context.Pipe(duplex=False)
            executor = ProcessPoolExecutor(
                1, context, initializer=worker_process.start, initargs=(lifeline,)
            )
            self._executors[slot] = (executor, ours)
        return self._executors[slot][0]

    def drop(self, slot: int) -> None:
        """End a process, whatever it is doing."""
        if slot in self._executors:
            executor, lifeline = self._executors.pop(slot)
            lifeline.close()
            executor.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End all processes."""
        for slot in list(self._executors):
            self.drop(slot)


class _Kept:
    """The workers of this process; reused by later stages, so that imports are paid once."""

    def __init__(self) -> None:
        self._slots: _Slots | None = None

    def take(self, environments: list[dict[str, str]]) -> _Slots:
        if self._slots is None or self._slots.environments != environments:
            self.close()
            self._slots = _Slots(environments)
        return self._slots

    def close(self) -> None:
        if self._slots is not None:
            self._slots.close()
            self._slots = None


_KEPT = _Kept()
atexit.register(_KEPT.close)


def open_local(resources: WorkerConfig, num_workers: int) -> tuple[LocalWorkers, int]:
    """Return the workers of this machine and their number.

    Args:
        resources: resources of each worker.
        num_workers: workers wanted; fewer when the CUDA devices are fewer.

    Raises:
        EngineError: there are fewer CUDA devices than one worker needs.
    """
    assigned = assign_devices(cuda_devices(), num_workers, resources.num_gpus)
    environments = [
        {**resources.environment, **({} if devices is None else {DEVICES: devices})}
        for devices in assigned
    ]
    return LocalWorkers(environments), len(environments)


def _restore(saved: dict[str, str | None]) -> None:
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
