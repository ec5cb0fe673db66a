"""Remaining time of a run, from the fractions of time that its profile's stages took before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat

from ml.records.config import parse_yaml

MEASURED: Final = "conf/timings"
"""A file for each profile that was measured."""
_TRUST_SECONDS: Final = 60.0
"""Weight of the earlier run's speed: after so long a time, this run's own counts as much."""


class MeasuredRun(BaseModel):
    """A run from nothing, on a quiet machine.

    Attributes:
        seconds: wall clock of the whole; less than the sum of the stages where two ran at a time.
        stages: stage -> seconds of wall clock.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: PositiveFloat
    stages: dict[str, NonNegativeFloat]


def measured_run(root: Path, profile: str) -> MeasuredRun | None:
    """Return the recorded run of a profile, None if it was never measured.

    Args:
        root: the project folder.
        profile: its name.
    """
    path = root / MEASURED / f"{profile}.yaml"
    if not path.exists():
        return None
    return MeasuredRun.model_validate(parse_yaml(path.read_text(), f"{MEASURED}/{path.name}"))


class TimeLeft:
    """Estimates the remaining time from finished stages; unknown for unmeasured stages."""

    def __init__(
        self,
        measured: MeasuredRun | None,
        stages: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            measured: the recorded run of the profile.
            stages: stages of the run.
            clock: seconds that only grow.
        """
        self._clock, self._started = clock, clock()
        known = measured is not None and set(stages) <= set(measured.stages)
        self._left = {s: measured.stages[s] for s in stages} if measured and known else None
        self._speed = sum(measured.stages.values()) / measured.seconds if measured else 1.0
        self._done = 0.0

    def finish(self, stage: str) -> None:
        """Count a stage as finished.

        Args:
            stage: one of the run's stages.
        """
        if self._left is not None:
            self._done += self._left.pop(stage)

    @property
    def seconds(self) -> float | None:
        """Wall-clock time until all are finished; None if unknown."""
        if self._left is None:
            return None
        elapsed = self._clock() - self._started
        # Seconds of this run for a second of the recorded stages.
        pace = (elapsed + _TRUST_SECONDS) / (self._done + _TRUST_SECONDS * self._speed)
        return sum(self._left.values()) * pace

    def __str__(self) -> str:
        """Return it in words, such as `about 7 min left`; empty if unknown."""
        seconds = self.seconds
        if seconds is None:
            return ""
        return f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Format a duration: `40 s`, `7 min`, `2.5 h`.

    Args:
        seconds: the time.
    """
    if seconds < 90:
        return f"{max(10, round(seconds / 10) * 10)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
