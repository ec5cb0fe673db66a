"""What a run says on the terminal."""

from __future__ import annotations

import sys

from tqdm import tqdm


def say(text: str) -> None:
    """Write a line to stdout, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def stage_line(position: int, total: int, stage: str, text: str) -> str:
    """Return one stage's line: `[ 3/14] captions            text`."""
    return f"[{position:>2}/{total}] {stage:<20} {text}"
