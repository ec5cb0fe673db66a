"""A takedown in the whole project: data, markers, dvc.lock, DVC's cache, runs; then the proof."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from dagster_project.env import STORAGE, dagster_config
from dagster_project.markers import read_marker, unit_files, write_marker
from dagster_project.pipeline import Pipeline
from ml.records.atomic import remove
from ml.takedown.removal import REGISTER_NAME, Removal, find_target, search, take_down, unsearched

_IMAGES = ("*.jpg", "*.jpeg", "*.png", "*.webp")
_EXAMPLES = ("input_example.json", "serving_input_example.json")
"""Earlier trainings gave MLflow an image of the dataset as example."""
_UNSIGNED = "the image cannot be read, or is of nearly one colour"
_IMAGE = re.compile(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class TakedownReport:
    """Result of a takedown.

    Attributes:
        samples: ids of the images that are gone.
        removal: files edited and deleted.
        recorded: stages recorded again in dvc.lock.
        stale: stages that have to be made again, trainings that have seen the samples among them.
        left: where something was still found; empty is the proof.
        remotes: DVC's remotes, which others may share: nothing was searched or removed there.
        unsearched: packed files, films, links, places outside the project, and images whose copies
            of another size or encoding could not be recognised.
    """

    samples: tuple[str, ...]
    removal: Removal
    recorded: tuple[str, ...]
    stale: tuple[str, ...]
    left: tuple[str, ...]
    remotes: tuple[str, ...]
    unsearched: tuple[str, ...] = ()


def run_takedown(
    pipeline: Pipeline, samples: Iterable[str], sources: Iterable[str]
) -> TakedownReport:
    """Remove samples and sources from a project and search every file of it.

    DVC's cache keeps only what the present dvc.lock names: older versions held the samples.

    Args:
        pipeline: the project.
        samples: ids of images.
        sources: ids of poses, all of whose images are removed.

    Raises:
        TakedownError: an id is unknown, or a file cannot be edited.
    """
    ws = pipeline.workspace()
    target = find_target(ws, samples, sources)
    finished = _finished(pipeline)
    removal = take_down(ws, target)
    # Pages made of the data; checks write them again.
    for page in (pipeline.root / "reports").glob("*"):
        remove(page)
    for pattern in _IMAGES:
        # Runs show images of the samples they were validated on.
        for path in (pipeline.root / "mlruns").rglob(pattern):
            path.unlink()
    for name in _EXAMPLES:
        for path in (pipeline.root / "mlruns").rglob(name):
            path.unlink()
    for database in (*(pipeline.root / ".dagster").rglob("*.db"), *_mlflow(pipeline.root)):
        strip_images(database)
    recorded = tuple(stage for stage in finished if _record(pipeline, stage))
    pipeline.bridge.collect_garbage()
    tracked = _tracked_by_git(pipeline.root)
    left = search(
        pipeline.root, target, (REGISTER_NAME, *tracked), _Copies(pipeline.root, tracked).include
    )
    caches = _caches_outside(pipeline)
    left += [f"{cache}/{line}" for cache in caches for line in search(cache, target, ())]
    closed = [f"{cache}/{line}" for cache in caches for line in unsearched(cache)]
    return TakedownReport(
        tuple(sorted(target.samples)),
        removal,
        recorded,
        tuple(pipeline.stale()),
        tuple(left),
        tuple(pipeline.bridge.remotes()),
        (
            *unsearched(pipeline.root, caches),
            *closed,
            *(f"copies of {name}, changed: {_UNSIGNED}" for name in target.unsigned),
            *_outside(pipeline.root),
        ),
    )


def strip_images(database: Path) -> int:
    """Take images out of the texts of a database: older event logs carried them as base64.

    Args:
        database: a SQLite file; the space is overwritten.

    Returns:
        Number of changed texts.
    """
    changed = 0
    with closing(sqlite3.connect(database)) as connection:
        connection.create_function("stripped", 1, lambda text: _IMAGE.sub("removed", text))
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for column in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
                where = f"""typeof("{column[1]}") = 'text' AND instr("{column[1]}", ';base64,')"""
                statement = f'UPDATE "{table}" SET "{column[1]}" = stripped("{column[1]}")'
                changed += connection.execute(f"{statement} WHERE {where}").rowcount
        connection.commit()
        if changed:
            connection.execute("VACUUM")
    return changed


def _caches_outside(pipeline: Pipeline) -> list[Path]:
    """Return DVC's cache if it is not in the project."""
    cache = pipeline.bridge.cache().resolve()
    return [] if not cache.is_dir() or cache.is_relative_to(pipeline.root.resolve()) else [cache]


def _outside(root: Path) -> list[str]:
    """Return known places outside the project that may hold traces."""
    home = os.environ.get("DAGSTER_HOME", "")
    places = [home] if home and root.resolve() not in Path(home).resolve().parents else []
    if home:
        # Runs and their events, when Dagster is configured to keep them on a database server.
        storage = dagster_config(Path(home)).get("storage") or {}
        kinds = set() if storage == STORAGE else storage.keys() - {"sqlite"}
        places += [f"{home}: Dagster's storage on {kind}" for kind in sorted(kinds)]
    if tracking := os.environ.get("MLFLOW_TRACKING_URI", ""):
        places.append(tracking)
    # Ray spills objects here, for any user.
    spill = Path(tempfile.gettempdir()) / "ray"
    return [*places, *([str(spill)] if spill.exists() else [])]


def _mlflow(root: Path) -> list[Path]:
    return [path for path in [root / "mlruns" / "mlflow.db"] if path.exists()]


def _tracked_by_git(root: Path) -> list[str]:
    """Return code and documents: they contain no data, only ids as examples."""
    return _git(root, "ls-files")


def _git(root: Path, *arguments: str) -> list[str]:
    """Return what git prints, line by line; nothing where there is no git."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    try:
        printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return printed.stdout.splitlines()


class _Copies:
    """Copies of code and documents: MLflow packs the library with every model that it registers."""

    def __init__(self, root: Path, tracked: Sequence[str]) -> None:
        self._root, self._tracked = root, tracked

    def include(self, path: Path) -> bool:
        """Return whether a file equals a tracked one, as it is now or was in a commit."""
        return _blob(path) in self._blobs

    @cached_property
    def _blobs(self) -> frozenset[str]:
        """Git's names of the contents; read only if something was found."""
        paths = [self._root / name for name in self._tracked]
        present = {_blob(path) for path in paths if path.is_file()}
        known = frozenset(self._tracked)
        lines = (line.partition(" ") for line in _git(self._root, "rev-list", "--objects", "--all"))
        return frozenset(present | {blob for blob, _, name in lines if name in known})


def _blob(path: Path) -> str:
    """Return the name that git gives to a file's content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _finished(pipeline: Pipeline) -> list[str]:
    """Return stages that are recorded and whole.

    Trainings are removed, as they have seen the samples.
    """
    locked = pipeline.bridge.locked()
    return [
        stage
        for stage in pipeline.graph
        if stage in locked
        and not pipeline.assets[stage].tracked
        and not pipeline.unfinished(stage, pipeline.units(stage))
    ]


def _record(pipeline: Pipeline, stage: str) -> bool:
    """Bring markers and lock up to the edited files, so that nothing makes the samples again."""
    outs = pipeline.graph[stage].outs
    for unit in pipeline.units(stage):
        folder = pipeline.stage_dir(stage)
        marker = read_marker(folder, unit)
        if marker is None:
            return False
        write_marker(
            folder,
            unit,
            replace(
                marker,
                fingerprint=pipeline.fingerprints(stage, [unit])[unit],
                files=unit_files(pipeline.root, outs, unit),
                images={n: p for n, p in marker.images.items() if (pipeline.root / p).exists()},
            ),
        )
    pipeline.bridge.record(stage)
    return True
