"""Time and disk space of this project's stages, from Dagster's records and the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_project.env import prepare
from dagster_project.pipeline import Pipeline
from ml.records.cost import StageMeasurement

_MADE = "made in this run"


def measure(
    pipeline: Pipeline, given: Mapping[str, Any], planned: int = 0
) -> list[StageMeasurement]:
    """Return seconds and bytes of every finished stage, latest run first.

    Args:
        pipeline: the project.
        given: stage -> `seconds_per_image`, `device`, `batch`: measured elsewhere, such as on a
            GPU or by a preflight; takes the place of what was measured here.
        planned: images that go through a given stage that was never made; then stages that are
            neither made nor given are left out. 0: every stage must be made or given, and a given
            one made.

    Returns:
        A measurement for each stage, in order.

    Raises:
        ValueError: a stage has never run and is not given, or a given one is unknown.
    """
    from dagster_project.launch import open_instance

    if unknown := sorted(set(given) - set(pipeline.graph)):
        raise ValueError(f"plan: {unknown} are no stages, expected some of {list(pipeline.graph)}")
    found = []
    with open_instance(prepare(pipeline.root)) as instance:
        for stage in pipeline.graph:
            if stage in given:
                value = given[stage]
                unmade = (planned, planned * int(value.get("bytes_per_image", 0)))
                images, size = _made(pipeline, stage, unmade if planned else None)
                seconds = float(value["seconds_per_image"]) * images
                device, batch = str(value.get("device", "given")), int(value.get("batch", 0))
                found.append(StageMeasurement(stage, seconds, images, size, device, batch))
                continue
            if planned and not pipeline.markers(stage, pipeline.units(stage)):
                continue
            images, size = _made(pipeline, stage)
            seconds = _seconds(instance, stage, len(pipeline.units(stage)))
            found.append(StageMeasurement(stage, seconds, images, size, "this machine"))
    return found


def kept_images(pipeline: Pipeline) -> int:
    """Return the number of images that the filters kept.

    Args:
        pipeline: the project.

    Raises:
        ValueError: there are none yet.
    """
    markers = pipeline.markers("filtered_dataset", pipeline.units("filtered_dataset"))
    kept = sum(marker.num_out for marker in markers.values())
    if not kept:
        raise ValueError("plan: no image has passed the filters; make filtered_dataset first")
    return kept


def _made(pipeline: Pipeline, stage: str, unmade: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the images that a stage processed and the bytes it wrote; `unmade` if it never ran."""
    markers = pipeline.markers(stage, pipeline.units(stage))
    if not markers and unmade is not None:
        return unmade
    if not markers:
        raise ValueError(
            f"plan: stage {stage} has not been made here; make it, or give its seconds_per_image "
            "with --measured"
        )
    files = [pipeline.root / name for marker in markers.values() for name in marker.files]
    images = sum(marker.num_in for marker in markers.values())
    return images, sum(path.stat().st_size for path in files if path.exists())


def _seconds(instance: dg.DagsterInstance, stage: str, num_units: int) -> float:
    """Return the wall clock of all units, scaled from those of the latest run that made some."""
    records = instance.fetch_materializations(dg.AssetKey(stage), limit=200).records
    for record in records:
        event = record.asset_materialization
        made = event.metadata.get(_MADE) if event else None
        units = int(made.value) if made is not None else 0  # type: ignore[arg-type]
        if not units:
            continue
        for step in instance.get_run_step_stats(record.run_id, [stage]):
            if step.start_time and step.end_time:
                return (step.end_time - step.start_time) / units * num_units
    raise ValueError(
        f"plan: Dagster has no record of making {stage} here; make it with --force, or give its "
        "seconds_per_image with --measured"
    )
