"""Terminal output of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

_POSITION: ContextVar[str] = ContextVar("position", default="")


def say(text: str) -> None:
    """Write a line to stdout, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


@contextmanager
def numbered(position: int, total: int) -> Iterator[None]:
    """Give a number to the line of the stage that is said within: `[ 3/14] captions ...`.

    Args:
        position: how many stages are finished with this one.
        total: stages of this run.
    """
    before = _POSITION.set(f"[{position:>{len(str(total))}}/{total}] ")
    try:
        yield
    finally:
        _POSITION.reset(before)


def stage_line(stage: str, text: str) -> str:
    """Return one stage's line, with its number where `numbered` gives one."""
    return f"{_POSITION.get()}{stage:<20} {text}"


def say_about(stage: str, line: str) -> None:
    """Write another process's output about a stage; its stage line gets our number."""
    say(f"{_POSITION.get()}{line}" if line.startswith(f"{stage} ") else line)
