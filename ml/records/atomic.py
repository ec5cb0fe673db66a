"""Whole files or none: write to a temporary name next to the target, then rename.

Renaming replaces the directory entry and never touches the old file's bytes, so hard links into
DVC's cache stay intact. Every temporary thing in a project's folder, file or folder, gets its name
here and is removed here. What only one process reads (scenes of the web page, a worker's log, links
that join two models' folders) is in the system's temporary folder, made by `tempfile`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PREFIX: Final = ".tmp-"
"""Prefix of all temporary names; DVC and the markers ignore them."""


def temporary_path(path: Path) -> Path:
    """Return the name under which this process writes something until it is whole.

    Args:
        path: its final name; the suffix is kept, because some writers choose the format by it.

    Returns:
        A hidden name in the same folder.
    """
    path = Path(path)
    return path.with_name(f"{PREFIX}{_writer()}-{path.name}")


def _writer() -> str:
    """Return the name of this process among all machines that share the folder.

    Containers count from 1.
    """
    host = hashlib.blake2s(socket.gethostname().encode(), digest_size=4).hexdigest()
    return f"{host}-{os.getpid()}"


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing to remove is no error.

    Args:
        path: file, folder or link to remove; a link's target is not touched.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> list[Path]:
    """Remove temporary files and folders that killed writers left below a folder.

    Args:
        folder: need not exist. The caller must ensure that no process is writing there.

    Returns:
        The removed paths.
    """
    # Listed first: removing a folder removes its content.
    found = sorted(folder.rglob(f"{PREFIX}*")) if folder.is_dir() else []
    for path in found:
        remove(path)
    return found


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it becomes `path`, on error it is removed.

    Args:
        path: the file to make; its folder is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        remove(temporary)


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Yield a new empty folder for temporary files, which is removed at the end.

    Args:
        beside: the folder to make it in, created if missing: not the system's, which may be
            missing, or too small for what is put there.
    """
    beside = Path(beside)
    beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{_writer()}-", dir=beside))
    try:
        yield folder
    finally:
        remove(folder)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder; it replaces `path` on success and is removed on error.

    Args:
        path: the folder to make; one that is there already is replaced as a whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    remove(temporary)
    temporary.mkdir()
    try:
        yield temporary
        remove(path)
        os.replace(temporary, path)
    finally:
        remove(temporary)


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
