"""Runs a preflight: every need of every part, then its forward, and all problems at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ml.preflight.images import TABLE_BYTES
from ml.preflight.needs import Forward, Need, Part
from ml.preflight.parts import parts_of
from ml.preflight.report import Disk, Problem, Report, Tried, one_line
from ml.records.config import StageConfig
from ml.records.models import choose_device
from ml.records.progress import progress
from ml.records.workspace import Workspace

_WRONG = (ValueError, OSError, RuntimeError, KeyError, ImportError)
"""What a loader raises: our own errors are ValueErrors, the libraries' RuntimeErrors (too little
memory is one), and a library that is not installed an ImportError."""


def run_preflight(ws: Workspace, configs: Mapping[str, StageConfig]) -> Report:
    """Verify all external requirements of a profile.

    Args:
        ws: the workspace; nothing is written there.
        configs: stage -> its configuration, in the order of the stages.

    Returns:
        All problems; what was found; how long each forward took.
    """
    report = Report()
    for part in progress(parts_of(ws, configs), "preflight"):
        _look_at(part, report)
    disk = report.disk = _disk(ws, report)
    if disk.needed_bytes is not None and disk.needed_bytes > disk.free_bytes:
        report.problems.append(
            Problem(
                stage="images",
                place="run.num_shards",
                problem=f"{disk.images:,} images need about {disk.needed_bytes / 1e9:.1f} GB, the "
                f"disk has {disk.free_bytes / 1e9:.1f} GB free; make fewer shards, or make room",
            )
        )
    return report


def _look_at(part: Part, report: Report) -> None:
    before = len(report.problems)
    device = part.device
    if device is not None:
        problem = _problem(lambda: choose_device(device))
        if problem:
            report.problems.append(Problem(part.stage, f"{part.place}.device", problem))
    for need in part.needs:
        if device is not None and len(report.problems) > before and _is_device(report.problems[-1]):
            # Its memory cannot be asked for; the files are looked at once the device is right.
            continue
        found: list[Mapping[str, str]] = []
        problem = _problem(partial(_check_into, found, need))
        if problem:
            report.problems.append(Problem(part.stage, need.place, problem, need.get))
        else:
            report.found.append({"stage": part.stage, "place": need.place, **found[0]})
    if part.forward is None or len(report.problems) > before:
        return
    made: list[Forward] = []
    forward = part.forward
    problem = _problem(lambda: made.append(forward()))
    if problem:
        gets = list(dict.fromkeys(need.get for need in part.needs if need.get))
        report.problems.append(Problem(part.stage, part.place, problem, "; ".join(gets)))
    else:
        name = choose_device(device or "cpu").type
        report.tried.append(
            Tried(part.stage, part.place, made[0].seconds, name, made[0].image_bytes)
        )


def _is_device(problem: Problem) -> bool:
    return problem.place.endswith(".device")


def _check_into(found: list[Mapping[str, str]], need: Need) -> None:
    found.append(need.check())


def _problem(call: Callable[[], Any]) -> str:
    """Return what a call's error says, on one line; empty when there is none."""
    try:
        call()
    except _WRONG as error:
        return one_line(str(error)) or type(error).__name__
    return ""


def _disk(ws: Workspace, report: Report) -> Disk:
    images = ws.num_shards * ws.shard_size
    size = max((tried.image_bytes for tried in report.tried), default=0)
    each = size + TABLE_BYTES if size else None
    folder = Path(ws.root)
    free = shutil.disk_usage(folder).free
    return Disk(images, each, None if each is None else each * images, free)
