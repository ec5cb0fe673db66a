"""SIGKILL again and again while a whole chain is made; the last run must end in the same bytes.

Every other kill waits for a certain moment (a shard is being written, a checkpoint of a training
appears, DVC records, MLflow's database is written, a worker makes a shard) and comes a random
fraction of a second after it; the others come at random times.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from dagster_project.doctor import RWLOCK
from tests.chain_project import MAX_GB, Chain, kill, processor_s, row, running, workers_of
from tests.rehearsal import peak_memory

SEED = 20240718
_LOOK_EVERY_S = 0.003
_LOOKS = 100
_ENDS_WITHIN_S = 20.0
"""Longest lifetime of processes that a killed run had started."""


def _being_written(root: Path) -> str:
    """A unit's file under its temporary name, whatever the stage."""
    found = next((root / "data").glob("*/.tmp-*"), None)
    return f"while {found.parent.name} was written" if found else ""


def _training(root: Path) -> str:
    """A training that has written a checkpoint, which is before its last step."""
    found = next((root / "data" / ".work").glob("*/*/last.ckpt"), None)
    return f"in the training of {found.parents[1].name}" if found else ""


def _dvc_records(root: Path) -> str:
    """DVC's lock on paths that it reads or writes now."""
    path = root / RWLOCK
    return "while DVC recorded" if path.is_file() and path.stat().st_size > 2 else ""


def _mlflow_writes(root: Path) -> str:
    """SQLite's journal next to MLflow's database, which exists within a transaction only."""
    return "in a write of MLflow's database" if (root / "mlruns/mlflow.db-journal").exists() else ""


def _dagster_writes(root: Path) -> str:
    found = next((root / ".dagster" / "history").rglob("*-journal"), None)
    return "in a write of Dagster's database" if found else ""


@dataclass(frozen=True)
class Moment:
    """When to kill, and whom.

    Attributes:
        seen: what is there, in words; empty while it is not.
        worker: whether only a process that makes shards is killed, and the run goes on.
    """

    seen: Callable[[Path], str]
    worker: bool = False


MOMENTS = (
    Moment(_being_written),
    Moment(_being_written, worker=True),
    Moment(_dvc_records),
    Moment(_training),
    Moment(_mlflow_writes),
    Moment(_dagster_writes),
)


class Killer:
    """Makes a chain and kills it on the way."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        """Take an unmade copy.

        Args:
            chain: the project.
            folder: where to copy it.
        """
        self._chain, self._chance = chain, random.Random(SEED)
        self._root, self._said = chain.copy(folder / "killed"), folder / "killed.log"
        self._whole = True
        self._unmake()

    def run(self) -> bool:
        """Kill as often as the chain asks for, then let a run end; prints a row a kill.

        Returns:
            Whether all runs that ended left the same bytes, and no process took too much memory.
        """
        started = time.monotonic()
        with peak_memory() as peak_gb:
            if not self._kill_all():
                return False
            if self._process.poll() is not None:
                self._start()
            self._process.wait()
        self._judge(f"{self._chain.num_kills} kills, then one run", started, peak_gb())
        return self._whole

    def _kill_all(self) -> bool:
        """Kill as often as the chain asks for; False if a run that ended was not whole."""
        moments = cycle(MOMENTS)
        for number in range(1, self._chain.num_kills + 1):
            moment = next(moments) if number % 2 else None
            while not self._kill(number, moment):
                # It was finished before the moment came: from the beginning again.
                if not self._judge("made before the next kill"):
                    return False
                self._unmake()
        return True

    def _unmake(self) -> None:
        shutil.rmtree(self._root / "data")
        (self._root / "dvc.lock").unlink(missing_ok=True)
        self._start()

    def _start(self) -> None:
        self._process = self._chain.start(self._root, ("demo",), output=self._said)
        self._born = time.monotonic()

    def _kill(self, number: int, moment: Moment | None) -> bool:
        """Kill once; False when the run ended first."""
        if self._process.poll() is not None and self._process.returncode < 0:
            self._start()
        started, (low_s, high_s) = time.monotonic(), self._chain.kill_after_s
        done = processor_s(self._process.pid)
        # The kill before may have come at this very sign: what it left does not count.
        sign_from = done + self._chance.uniform(0, low_s / 2)
        end = done + high_s if moment else done + self._chance.uniform(low_s, high_s)
        what = "at a random time" if moment is None else "at a random time, no sign of it"
        while (done := processor_s(self._process.pid)) < end:
            if self._process.poll() is not None:
                return False
            if moment and done > sign_from and (seen := self._watch(moment)):
                what = seen
                time.sleep(self._chance.uniform(0, 0.05))
                break
            if moment is None:
                time.sleep(_LOOK_EVERY_S * _LOOKS)
        if moment and moment.worker and (found := workers_of(self._process.pid)):
            kill(self._chance.choice(found), signal.SIGKILL)
            whom, good = "a worker", True
        else:
            whom, good = self._end(number)
        at = f"after {done:.0f} s of work"
        row(
            f"kill {number}", f"SIGKILL of {whom} {what}, {at} and {self._last()}",
            "killed" if good else "processes live on", good, started,
        )  # fmt: skip
        return True

    def _watch(self, moment: Moment) -> str:
        """Look for a moment for a while, often: some last for milliseconds."""
        if moment.worker and not workers_of(self._process.pid):
            return ""
        for _ in range(_LOOKS):
            if seen := moment.seen(self._root):
                return seen
            time.sleep(_LOOK_EVERY_S)
        return ""

    def _end(self, number: int) -> tuple[str, bool]:
        """Kill all, or every third time the main process alone: what it started must notice."""
        group = self._process.pid
        alone = number % 3 == 0
        if alone:
            kill(group, signal.SIGKILL)
        else:
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        end = time.monotonic() + _ENDS_WITHIN_S
        while running(group) and time.monotonic() < end:
            time.sleep(0.05)
        left = running(group)
        for number in left:
            kill(number, signal.SIGKILL)
        self._whole &= not left
        return "the main process" if alone else "all", not left

    def _last(self) -> str:
        """The stage that the run finished last."""
        found = re.findall(r"^\[ *\d+/\d+\] (\w+)", self._said.read_text(), re.MULTILINE)
        return found[-1] if found else "no stage"

    def _judge(self, what: str, started: float | None = None, peak_gb: float = 0.0) -> bool:
        """Print how a run ended; returns whether it left everything as it should be."""
        problem = self._chain.difference(self._root)
        good = self._process.returncode == 0 and not problem and peak_gb <= MAX_GB
        self._whole &= good
        row(
            "kills", what, problem or "made", good, started or self._born,
            self._said.read_text(), peak_gb,
        )  # fmt: skip
        return good
