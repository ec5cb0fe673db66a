"""A takedown in the whole project: data, markers, dvc.lock, DVC's cache, runs; then the proof."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dagster_project.markers import read_marker, unit_files, write_marker
from dagster_project.pipeline import Pipeline
from ml.takedown.removal import REGISTER_NAME, Removal, find_target, search, take_down

_PICTURES = ("*.jpg", "*.jpeg", "*.png")


@dataclass(frozen=True)
class TakedownReport:
    """What a takedown did.

    Attributes:
        samples: ids of the images that are gone.
        removal: files edited and deleted.
        recorded: stages recorded anew in dvc.lock.
        stale: stages that have to be made again, trainings that have seen the samples among them.
        left: where something was still found; empty is the proof.
        remotes: DVC's remotes, which others may share: nothing was searched or removed there.
    """

    samples: tuple[str, ...]
    removal: Removal
    recorded: tuple[str, ...]
    stale: tuple[str, ...]
    left: tuple[str, ...]
    remotes: tuple[str, ...]


def run_takedown(
    pipeline: Pipeline, samples: Iterable[str], sources: Iterable[str]
) -> TakedownReport:
    """Remove samples and sources from a project and search every file of it.

    DVC's cache keeps only what the present dvc.lock names: older versions held the samples.

    Args:
        pipeline: the project.
        samples: ids of images.
        sources: ids of poses, whose every image goes.

    Raises:
        TakedownError: an id is unknown, or a file cannot be edited.
    """
    ws = pipeline.workspace()
    target = find_target(ws, samples, sources)
    finished = _finished(pipeline)
    removal = take_down(ws, target)
    # Pages made of the data; checks write them again.
    shutil.rmtree(pipeline.root / "reports", ignore_errors=True)
    for pattern in _PICTURES:
        # Runs show pictures of the samples they were validated on.
        for path in (pipeline.root / "mlruns").rglob(pattern):
            path.unlink()
    recorded = tuple(stage for stage in finished if _record(pipeline, stage))
    pipeline.bridge.collect_garbage()
    left = search(pipeline.root, target, (REGISTER_NAME, *_tracked_by_git(pipeline.root)))
    return TakedownReport(
        tuple(sorted(target.samples)),
        removal,
        recorded,
        tuple(pipeline.stale()),
        tuple(left),
        tuple(pipeline.bridge.remotes()),
    )


def _tracked_by_git(root: Path) -> list[str]:
    """Code and documents: they are nobody's data, and use ids as examples."""
    command = ["git", "ls-files", "-z"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return listed.stdout.split("\0")


def _finished(pipeline: Pipeline) -> list[str]:
    """Stages that are recorded and whole; trainings are not kept, they have seen the samples."""
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
                pictures={n: p for n, p in marker.pictures.items() if (pipeline.root / p).exists()},
            ),
        )
    pipeline.bridge.record(stage)
    return True
