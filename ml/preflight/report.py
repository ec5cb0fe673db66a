"""What a preflight finds: problems, each on one line, and how long the models' forwards take."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

_LONGEST: Final = 700


@dataclass(frozen=True)
class Problem:
    """Something that would stop a stage.

    Attributes:
        stage: the stage that needs it.
        place: the value in params.yaml that names it.
        problem: what is wrong.
        get: where the right thing comes from; empty where nothing is to be fetched.
    """

    stage: str
    place: str
    problem: str
    get: str = ""

    def __str__(self) -> str:
        """Return the problem on one line."""
        text = f"{self.stage}: {self.place}: {one_line(self.problem)}"
        return f"{text}; {self.get}" if self.get else text


@dataclass(frozen=True)
class Tried:
    """A model that was loaded and has computed.

    Attributes:
        stage: the stage that needs it.
        place: the section of params.yaml that names it.
        seconds: one forward of one image (or text, or crop), after a first one.
        device: what it ran on.
        image_bytes: of the image that it made; 0 if it makes none.
    """

    stage: str
    place: str
    seconds: float
    device: str
    image_bytes: int = 0


@dataclass(frozen=True)
class Disk:
    """Room on the disk against what the plan writes.

    Attributes:
        images: that the plan makes.
        bytes_per_image: an image and its rows; None when nothing was drawn to measure it on.
        needed_bytes: for all of them, None likewise.
        free_bytes: on the project's disk.
    """

    images: int
    bytes_per_image: int | None
    needed_bytes: int | None
    free_bytes: int


@dataclass
class Report:
    """What a preflight found.

    Attributes:
        problems: in the order of the stages.
        found: every model, file and source that is there, with its version.
        tried: every model that has computed.
        disk: room on the disk.
    """

    problems: list[Problem] = field(default_factory=list)
    found: list[dict[str, str]] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    disk: Disk | None = None

    def measured(self) -> dict[str, dict[str, Any]]:
        """Return stage -> seconds of its forwards for one image, device and batch, for a plan."""
        stages: dict[str, dict[str, Any]] = {}
        for tried in self.tried:
            entry = stages.setdefault(
                tried.stage, {"seconds_per_image": 0.0, "device": tried.device, "batch": 1}
            )
            entry["seconds_per_image"] += tried.seconds
            if tried.image_bytes:
                entry["bytes_per_image"] = tried.image_bytes
        return stages

    def as_dict(self) -> dict[str, Any]:
        """Return the whole report as plain values."""
        return {
            "problems": [asdict(problem) for problem in self.problems],
            "found": self.found,
            "tried": [asdict(tried) for tried in self.tried],
            "disk": None if self.disk is None else asdict(self.disk),
            "measured": self.measured(),
        }


def one_line(text: str) -> str:
    """Return a text without line breaks, cut where it is very long.

    Args:
        text: such as a library's error.
    """
    text = " ".join(str(text).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
