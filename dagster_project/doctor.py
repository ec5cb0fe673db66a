"""Find damage in a project's own records, and with `repair` move damaged files aside.

Nothing is deleted: moved files are in `.dagster/damaged/`. dvc.lock is written again from the
markers, which record the inputs of every finished shard.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from dagster_project.dvc_sync import DamagedLock, read_lock
from dagster_project.locks import StageLock
from dagster_project.pipeline import Pipeline
from ml.records.atomic import PREFIX, remove_temporaries

DAMAGED_FOLDER: Final = "damaged"
_SQLITE: Final = b"SQLite format 3\0"
_BUSY_SECONDS: Final = 5.0
"""Longest wait for a database that another process has locked."""
RWLOCK: Final = Path(".dvc") / "tmp" / "rwlock"


class NeedsDoctor(ValueError):
    """A record of the project is damaged; the message names it and the remedy."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        path: the file or folder.
        problem: what is wrong with it.
        remedy: effect of a repair.
        repair: does it; None where a person has to.
    """

    path: Path
    problem: str
    remedy: str
    repair: Callable[[], None] | None = None


def check_quickly(pipeline: Pipeline, home: Path) -> None:
    """Check that records are not empty and begin with the bytes of their format.

    Costs a few milliseconds; `examine` reads them whole.

    Args:
        pipeline: the project.
        home: DAGSTER_HOME.

    Raises:
        NeedsDoctor: one of them is.
    """
    problems = [
        (path, problem)
        for path in [pipeline.root / RWLOCK, *_databases(pipeline.root, home)]
        if not _is_being_created(path)
        and (problem := _json_problem(path) if path.name == "rwlock" else _header_problem(path))
    ]
    if problems:
        path, problem = problems[0]
        raise NeedsDoctor(
            f"{path}: {problem}; `vggheads doctor` says what is damaged, and with --repair moves "
            "it aside"
        )


def examine(pipeline: Pipeline, home: Path) -> list[Finding]:
    """Return all damage in a project's records.

    Args:
        pipeline: the project.
        home: DAGSTER_HOME.

    Returns:
        Findings; a project in order has none.
    """
    return [
        *_lock_findings(pipeline, home),
        *_rwlock_findings(pipeline.root, home),
        *_database_findings(pipeline.root, home),
        *_leftovers(pipeline),
    ]


def _lock_findings(pipeline: Pipeline, home: Path) -> Iterator[Finding]:
    path = pipeline.root / "dvc.lock"
    try:
        read_lock(path)
    except DamagedLock as error:

        def repair() -> None:
            _move_aside(path, home)
            restore_lock(pipeline)

        yield Finding(path, str(error), "move it aside and rewrite it from the markers", repair)


def restore_lock(pipeline: Pipeline) -> list[str]:
    """Record in dvc.lock every stage whose files match its markers.

    A marker holds the fingerprint of code, values and inputs: a stage is recorded only if a rerun
    would reproduce its files.

    Args:
        pipeline: the project, without a dvc.lock.

    Returns:
        The stages that were recorded.
    """
    recorded: list[str] = []
    for stage in pipeline.graph:
        units = pipeline.units(stage)
        if set(pipeline.graph[stage].upstream) - set(recorded):
            # DVC would record the inputs on disk, altered or not.
            continue
        if pipeline.unfinished(stage, units) or pipeline.altered(stage, units, audit=True):
            continue
        pipeline.bridge.record(stage)
        recorded.append(stage)
    return recorded


def _rwlock_findings(root: Path, home: Path) -> Iterator[Finding]:
    path = root / RWLOCK
    if problem := _json_problem(path):
        yield Finding(path, problem, "move it aside", lambda: _move_aside(path, home))


def _json_problem(path: Path) -> str:
    """Return the damage of a JSON file of DVC; empty if it is sound or absent."""
    if not path.exists():
        return ""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return "" if isinstance(content, dict) else "not an object"


def _databases(root: Path, home: Path) -> list[Path]:
    found = [path for path in sorted(home.rglob("*.db")) if DAMAGED_FOLDER not in path.parts]
    return [*found, *(p for p in [root / "mlruns" / "mlflow.db"] if p.exists())]


def _is_being_created(path: Path) -> bool:
    """Return whether it may be the log of a run that another process is just starting.

    SQLite makes the file before it writes to it, and stages start concurrently.
    """
    return path.parent.name == "runs" and path.suffix == ".db" and path.stat().st_size == 0


def _header_problem(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(len(_SQLITE))
    if not start:
        return "an empty database"
    return "" if start == _SQLITE else "no SQLite database"


def _database_findings(root: Path, home: Path) -> Iterator[Finding]:
    for path in _databases(root, home):
        problem = _header_problem(path)
        if not problem:
            try:
                uri = f"{path.as_uri()}?mode=ro"
                with closing(sqlite3.connect(uri, _BUSY_SECONDS, uri=True)) as connection:
                    (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                problem = "" if said == "ok" else f"damaged: {said}"
                problem = problem or ("" if tables else "a database without tables")
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    yield Finding(path, f"in use: {error}", "close what uses it, and look again")
                    continue
                problem = f"cannot be opened: {error}"
            except sqlite3.DatabaseError as error:
                problem = f"damaged: {error}"
        if problem:
            lost = "the list of trainings" if path.name == "mlflow.db" else "the history of runs"
            remedy = f"move it aside; {lost} begins again, the data stay"
            yield Finding(path, problem, remedy, partial(_move_aside, path, home))


def _remove_leftovers(folder: Path) -> None:
    remove_temporaries(folder)


def _leftovers(pipeline: Pipeline) -> Iterator[Finding]:
    """Yield unfinished files of killed writers in stages that are not running."""
    for stage in pipeline.graph:
        folder = pipeline.stage_dir(stage)
        found = list(folder.rglob(f"{PREFIX}*")) if folder.is_dir() else []
        if not found:
            continue
        with StageLock(pipeline.root, stage).alone_at_once() as alone:
            if not alone:
                continue
        yield Finding(
            found[0],
            f"left by a killed writer, with {len(found) - 1} more",
            "remove them",
            partial(_remove_leftovers, folder),
        )


def _move_aside(path: Path, home: Path) -> None:
    """Move a file, and a database's journals with it, where a person can look at it."""
    folder = home / DAMAGED_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while any(folder.glob(f"{number:03d}-*")):
        number += 1
    for part in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
        if part.exists():
            shutil.move(part, folder / f"{number:03d}-{part.name}")
    os.sync()
