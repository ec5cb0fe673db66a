"""Runs stages in the order of their graph; single-core stages run concurrently with others.

A training scales badly with threads: two in parallel processes end sooner than two in sequence with
both cores. Placement changes no byte of the results.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dagster_project.console import numbered, say, say_about
from dagster_project.estimate import TimeLeft, duration, measured_run
from dagster_project.pipeline import Pipeline
from ml.records.config import read_config
from ml.records.progress import LINE_SECONDS, waiting
from ml.training.config import FitConfig

_PR_SET_PDEATHSIG = 1


@dataclass
class Schedule:
    """Stages to make, with their concurrency to this process.

    Attributes:
        pipeline: the project.
        stages: what to make, in the order of the graph.
        here: makes one stage in this process; returns whether it succeeded.
        aside: the command that makes one stage in a separate process.
    """

    pipeline: Pipeline
    stages: Sequence[str]
    here: Callable[[str], bool]
    aside: Callable[[str], list[str]]
    _running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)
    _finished: int = 0

    def __post_init__(self) -> None:
        """Look up the earlier durations of the profile's stages."""
        measured = measured_run(self.pipeline.root, self.pipeline.params.run.profile)
        self._time_left = TimeLeft(measured, self.stages)
        self._told = time.monotonic()

    def run(self) -> bool:
        """Make every stage; stops at the first failure, and lets what runs aside end.

        Returns:
            Whether all succeeded.
        """
        todo = list(self.stages)
        succeeded = True
        if left := str(self._time_left):
            say(left)
        while todo and (succeeded := succeeded and self._reap()):
            ready = [stage for stage in todo if self._is_ready(stage, todo)]
            if awaited := self._awaited(ready):
                succeeded = self._join(awaited)
                continue
            stage, is_aside = self._choose(ready)
            if is_aside:
                self._start_in_background(stage)
            else:
                with self._finishing(stage):
                    succeeded = self.here(stage)
            todo.remove(stage)
        joined = [self._join(stage) for stage in list(self._running)]
        return succeeded and all(joined)

    def _is_ready(self, stage: str, todo: Sequence[str]) -> bool:
        pending = {*todo, *self._running}
        return not pending & set(self.pipeline.graph[stage].upstream)

    def _awaited(self, ready: Sequence[str]) -> str | None:
        """Return what is to end aside before the next stage starts; None if one can start now.

        A training that started here would hold up what becomes ready when that is done.
        """
        assets = self.pipeline.assets
        if any(not assets[stage].tracked for stage in ready):
            return None
        short = [stage for stage in self._running if not assets[stage].tracked]
        return next(iter(short or ([] if ready else self._running)), None)

    def _choose(self, ready: Sequence[str]) -> tuple[str, bool]:
        """Return the next stage to start, and whether it runs aside."""
        for stage in ready:
            if self._is_switched_off(stage):
                return stage, False
        assets = self.pipeline.assets
        shared = [stage for stage in ready if assets[stage].shares_work]
        if len(ready) > 1 and len(self._running) + 1 < self.pipeline.params.run.workers:
            # What uses one core goes aside. A training does not take it from shared work: that
            # has use for all of them, and once it is done, trainings run concurrently with each
            # other.
            single = [
                stage
                for stage in ready
                if not assets[stage].shares_work
                and not (shared and assets[stage].tracked)
                and not self._wants_all_cores(stage)
            ]
            if single:
                return single[-1], True
        return (shared or list(ready))[0], False

    def _wants_all_cores(self, stage: str) -> bool:
        """Return whether a training was given more than one core.

        Declared by its training loop.
        """
        fit = self.pipeline.params.values[stage].get("fit") or {}
        return read_config(FitConfig, f"{stage}.fit", fit).wants_all_cores

    def _is_switched_off(self, stage: str) -> bool:
        """Return whether a stage is switched off, so that no process is needed for it."""
        return self.pipeline.params.values[stage].get("enabled") is False

    def _reap(self) -> bool:
        """Report finished background stages; return whether they succeeded."""
        ended = [stage for stage, process in self._running.items() if process.poll() is not None]
        joined = [self._join(stage) for stage in ended]
        return all(joined)

    @contextmanager
    def _finishing(self, stage: str) -> Iterator[None]:
        """Give a number to the stage that ends within, and report the remaining time."""
        with numbered(self._finished + 1, len(self.stages)):
            yield
        self._finished += 1
        self._time_left.finish(stage)
        if self._finished < len(self.stages) and time.monotonic() - self._told > LINE_SECONDS:
            self._report_progress()

    def _report_progress(self) -> None:
        """Report background stages with start and last output, and the remaining time of all."""
        self._told = time.monotonic()
        parts = [str(self._time_left)] if str(self._time_left) else []
        for stage, started in self._started.items():
            told = _last_line(self._log(stage))
            since = duration(time.monotonic() - started)
            parts.append(f"{stage} runs for {since}" + (f" ({told})" if told else ""))
        if parts:
            say(f"  {'; '.join(parts)}")

    def _start_in_background(self, stage: str) -> None:
        self._started[stage] = time.monotonic()
        log = self._log(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as errors:
            self._running[stage] = subprocess.Popen(
                self.aside(stage),
                cwd=self.pipeline.root,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=_die_with_parent,
            )

    def _join(self, stage: str) -> bool:
        process = self._running.pop(stage)
        with self._finishing(stage):
            for line in self._output(stage, process).splitlines():
                say_about(stage, line)
        if process.returncode != 0:
            tail = self._log(stage).read_text().splitlines()[-15:]
            say("\n".join(tail))
        return process.returncode == 0

    def _output(self, stage: str, process: subprocess.Popen[str]) -> str:
        """Return a process's output once it has ended; report progress meanwhile."""
        with waiting(stage):
            while True:
                try:
                    output, _ = process.communicate(timeout=LINE_SECONDS)
                except subprocess.TimeoutExpired:
                    self._report_progress()
                else:
                    del self._started[stage]
                    return output

    def _log(self, stage: str) -> Path:
        return self.pipeline.root / ".dagster" / "logs" / f"{stage}.log"


def _last_line(log: Path) -> str:
    """Return the last line of progress in a log, empty if there is none."""
    lines = [
        line for line in log.read_text(errors="replace").splitlines() if line.endswith("left]")
    ]
    return lines[-1] if lines else ""


def _die_with_parent() -> None:
    """Have Linux kill this process when its parent is killed: no run continues unseen."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
