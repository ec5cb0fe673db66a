"""Markers: a small JSON file next to the data, written last, that marks a shard as finished.

A marker records the inputs of its shard (fingerprint), so a killed run resumes and a changed
stage does not take old shards for new ones. It is inside the stage's DVC-tracked folder: who
pulls the data can add shards to it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ml.records.atomic import write_json

WHOLE = "stage"
"""The unit of a stage that is not sharded."""


@dataclass(frozen=True)
class Marker:
    """Record of a finished unit: a shard, or a whole unsharded stage.

    Attributes:
        fingerprint: hash of its code, parameters and inputs.
        files: path relative to the root -> md5, of all files made.
        num_in: samples given.
        num_out: samples in its output.
        num_excluded: samples excluded.
        metadata: that of the stage's report.
        images: name -> path relative to the root.
    """

    fingerprint: str
    files: dict[str, str] = field(default_factory=dict)
    num_in: int = 0
    num_out: int = 0
    num_excluded: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


def marker_path(stage_dir: Path, unit: str) -> Path:
    """Return where the marker of a unit is."""
    return stage_dir / f"{unit}.json"


def read_marker(stage_dir: Path, unit: str) -> Marker | None:
    """Return the marker of a unit, or None: not finished, or the marker is not one of ours."""
    path = marker_path(stage_dir, unit)
    if not path.exists():
        return None
    try:
        return Marker(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None


def write_marker(stage_dir: Path, unit: str, marker: Marker) -> None:
    """Write a marker; call it after every file of the unit has been written."""
    write_json(marker_path(stage_dir, unit), asdict(marker))


def unit_files(root: Path, outs: tuple[str, ...], unit: str) -> dict[str, str]:
    """Return the files of a unit with their md5.

    Args:
        root: the project folder.
        outs: the stage's outs, relative to the root.
        unit: a shard, whose files begin with its name; or `WHOLE`, all files.

    Returns:
        Path relative to the root -> md5; hidden files (unfinished writes) are left out.
    """
    files = {}
    for out in outs:
        marker = marker_path(root / out, unit)
        for path in sorted(_named(root / out, unit)):
            if path != marker and path.is_file():
                files[str(path.relative_to(root))] = md5_of(path)
    return files


def _named(folder: Path, unit: str) -> Iterator[Path]:
    """Yield the files of a unit in a folder and those below it.

    Names are compared as strings: every unit walks the folder of all units, where matching patterns
    takes twice as long (6.2 instead of 3.4 ms a shard among 1,700 shards of four files).
    """
    starts = tuple(f"{unit}{separator}" for separator in ".-_")
    for parent, _, names in os.walk(folder):
        for name in names:
            if name[0] != "." and (unit == WHOLE or name.startswith(starts)):
                yield Path(parent, name)


def complete(root: Path, marker: Marker) -> bool:
    """Return whether all files of a unit exist."""
    return all((root / name).exists() for name in marker.files)


def content_version(markers: Mapping[str, Marker]) -> str:
    """Return a hash of the content of some units, for those of a stage that is not complete."""
    files = sorted(item for marker in markers.values() for item in marker.files.items())
    return hashlib.md5(json.dumps(files).encode(), usedforsecurity=False).hexdigest()


def md5_of(path: Path) -> str:
    """Return the md5 of a file's bytes, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
