"""One way to show progress: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_SECONDS: Final = 30.0
"""Interval of log lines without a terminal; shorter loops are silent there."""
_LINE: Final = "{desc}: {n_fmt}/{total_fmt} [{elapsed}, {remaining} left]"


class Progress(Protocol):
    """Progress report of a loop."""

    def update(self, count: int) -> object:
        """Count items as done.

        Args:
            count: how many since the last call.
        """

    def close(self) -> None:
        """End it: the bar goes."""


class ProgressLines:
    """Lines on stderr, at most one in `LINE_SECONDS`, for logs and pipes."""

    def __init__(self, description: str, total: int | None, done: int = 0) -> None:
        """Begin to count.

        Args:
            description: prefix of each line.
            total: number of items, None if unknown.
            done: items that an earlier run has done; the time left is reckoned without them.
        """
        self._description, self._total = description, total
        self._first = self._done = done
        self._started = self._told = time.monotonic()

    def update(self, count: int) -> None:
        """Count items, and write a line if the last one is old enough.

        Args:
            count: how many since the last call.
        """
        self._done += count
        now = time.monotonic()
        if now - self._told < LINE_SECONDS:
            return
        self._told = now
        line = tqdm.format_meter(
            self._done,
            self._total,  # type: ignore[arg-type] # None is taken: no total
            now - self._started,
            prefix=self._description,
            initial=self._first,
            bar_format=_LINE,
        )
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Do nothing: a line is not taken back."""


def open_progress(
    description: str, total: int | None = None, done: int = 0, unit: str = "it"
) -> Progress:
    """Begin to show progress, for a loop that counts by itself; else `progress` is simpler.

    Args:
        description: shown in front.
        total: number of items, None if unknown.
        done: items that an earlier run has done.
        unit: name of an item on the bar.
    """
    if not sys.stderr.isatty():
        return ProgressLines(description, total, done)
    return tqdm(
        desc=description, total=total, initial=done, unit=unit, leave=False, dynamic_ncols=True
    )


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate, showing on stderr how far it is: a bar on a terminal, elsewhere lines.

    Args:
        items: items to iterate over.
        description: shown in front.
        total: number of items, when `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    shown = open_progress(description, total)
    try:
        for item in items:
            yield item
            shown.update(1)
    finally:
        shown.close()


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show that something else is being waited for; silent when stderr is not a terminal."""
    with tqdm(desc=f"waiting for {description}", bar_format="{desc}", disable=None, leave=False):
        yield
