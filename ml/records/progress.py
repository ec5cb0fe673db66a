"""One progress bar for everything that takes longer than a few seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar on stderr; silent when stderr is not a terminal.

    Args:
        items: what to iterate.
        description: shown left of the bar.
        total: number of items, when `items` has no length.
    """
    yield from tqdm(
        items, desc=description, total=total, disable=None, leave=False, dynamic_ncols=True
    )


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show that something else is being waited for; silent when stderr is not a terminal."""
    with tqdm(desc=f"waiting for {description}", bar_format="{desc}", disable=None, leave=False):
        yield
