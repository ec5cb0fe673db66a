"""Whole files or none: write to a temporary name beside the target, then rename.

Renaming replaces the directory entry and never touches the old file's bytes, so hard links into
DVC's cache stay intact.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it becomes `path`, on error it is removed.

    Args:
        path: the file to make; its folder is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept: some writers choose their format by it.
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write JSON atomically, with sorted keys: equal values give equal bytes.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON cannot carry.
    """
    write_text(path, json.dumps(value, sort_keys=True, indent=indent, allow_nan=False) + "\n")
