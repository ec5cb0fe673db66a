"""Locks between runs: on a shard while it is processed, on a stage while it is cleaned or recorded.

All belong to the process that took them: a killed one gives them up. They are files in `.dagster/`,
so runs on machines that share the project folder see each other's (flock, which NFS has from 4 on).
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dagster_project.console import say


class StageLock:
    """Shared by all runs that make shards of a stage; alone, a run may tidy and record it."""

    def __init__(self, root: Path, stage: str) -> None:
        """Name the lock.

        Args:
            root: the project folder.
            stage: the stage.
        """
        self.stage = stage
        self.path = root / ".dagster" / f"writing-{stage}.lock"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Acquire it shared; waits for an exclusive holder."""
        with self._held(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Acquire it exclusively; waits until no process makes shards of the stage."""
        with self._held(fcntl.LOCK_EX):
            yield

    @contextmanager
    def alone_at_once(self) -> Iterator[bool]:
        """Try to hold it alone; yields whether that is so."""
        with self._file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def _held(self, kind: int) -> Iterator[None]:
        with self._file() as file:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another run is making {self.stage}; waiting for it")
                fcntl.flock(file, kind)
            yield

    @contextmanager
    def _file(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            yield file.fileno()


class ShardLocks:
    """The shards of one stage that this run is making now."""

    def __init__(self, root: Path, stage: str) -> None:
        """Start without locks.

        Args:
            root: the project folder.
            stage: the stage.
        """
        self._folder = root / ".dagster" / "shards" / stage
        self._stage = stage
        self._held: dict[str, FileLock] = {}

    def take(self, shard: str) -> bool:
        """Try to acquire a shard; return whether no other process holds it."""
        lock = self._lock(shard)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[shard] = lock
        return True

    def await_release(self, shard: str) -> None:
        """Wait until another run has finished a shard, or given it up."""
        assert not self._held, "who holds shards and waits for others can wait forever"
        say(f"another run is making {self._stage} {shard}; waiting for it")
        with self._lock(shard):
            pass

    def release(self, shard: str) -> None:
        """Give a shard up."""
        self._held.pop(shard).release()

    def release_all(self) -> None:
        """Give up all that are held."""
        for shard in list(self._held):
            self.release(shard)

    def _lock(self, shard: str) -> FileLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / f"{shard}.lock")
