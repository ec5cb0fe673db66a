"""A stage's report as one file with the time, place and code version of its run.

Reports in `data/` omit these: equal inputs give equal bytes, and DVC compares them.
"""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dagster_project.estimate import duration
from dagster_project.pipeline import Pipeline
from ml.records.atomic import write_text

FOLDER: Final = "reports"


def page_path(pipeline: Pipeline, stage: str) -> Path:
    """Return where the page of a stage is, if it has one.

    Args:
        pipeline: the project.
        stage: its name.
    """
    return pipeline.root / FOLDER / stage / "index.html"


def write_page(pipeline: Pipeline, stage: str, seconds: float) -> Path | None:
    """Write the page of a stage that has just run.

    Args:
        pipeline: the project.
        stage: its name.
        seconds: duration of the run.

    Returns:
        The page; None where the stage has no report.html.
    """
    source = pipeline.stage_dir(stage) / "report.html"
    if not source.exists():
        return None
    # Imported here: commands that only name the page start in a third of the time.
    from dagster_project.resources import git_tags
    from ml.evaluation.report import standalone

    tags = git_tags(pipeline.root)
    commit = tags.get("mlflow.source.git.commit", "not in git")[:12]
    changed = " and changes that are not committed" if tags.get("git.dirty") == "true" else ""
    page = page_path(pipeline, stage)
    made = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": f"{commit}{changed}",
        "machine": machine(),
        "profile": pipeline.params.run.profile,
        "time of this stage": duration(seconds),
    }
    write_text(page, standalone(source, made))
    return page


def machine() -> str:
    """Return the processor's name, the number of its cores that may be used, and the system."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.machine()}, {cores} cores, {platform.system()}"
