"""Poses estimated in source images: look, keep keypoints and neutral words, forget the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from ml.poses.backends import DESCRIBERS, ESTIMATORS
from ml.poses.config import EstimatorConfig, PosesConfig
from ml.poses.describers import Describer, DescriberConfig
from ml.poses.estimator import FoundPeople, PoseEstimator, to_pose
from ml.poses.sampler import STAGE, split_of
from ml.poses.screening import canvas_size, screen
from ml.poses.skeleton import PoseSample
from ml.poses.sources import Problem, SourceImage, source_images
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.progress import progress
from ml.records.register import lookup
from ml.records.tables import POSE_SOURCES, empty_table, write_table
from ml.records.workspace import Workspace

SOURCES: Final = "sources"
"""Next to `<shard>.parquet`: `<shard>.sources.parquet`."""


@dataclass(frozen=True)
class _Seen:
    """An image that passed the screening, as long as it is looked at."""

    pose_id: str
    image: SourceImage
    image_rgb: np.ndarray


@dataclass(frozen=True)
class _Kept:
    """What is left of an image."""

    pose: PoseSample
    description: str
    image: SourceImage


def estimate_shard(
    ws: Workspace, config: PosesConfig, shard: str, exclusions: Exclusions
) -> tuple[int, list[PoseSample]]:
    """Estimate the poses of one shard of the source, and write its table of sources.

    Args:
        ws: the workspace.
        config: source, models, sizes, split fractions.
        shard: name of the shard.
        exclusions: receives the images that give no pose.

    Returns:
        Number of images, and the poses.

    Raises:
        ValueError: there is no such source, or a model is not the one meant.
        KeyError: the asset register does not know the source.
    """
    lookup(config.images.asset)
    number = shard.rsplit("-", 1)[-1]
    incoming = source_images(config.images, config.source, ws.root, int(number), ws.shard_size)
    ids = ((f"pose-{number}-{index:05d}", image) for index, image in enumerate(incoming))
    counted = _Counter()
    seen = _screened(counted.count(progress(ids, f"poses {shard}")), config, exclusions)
    estimator = _load_estimator(config.images.estimator, ws.root)
    describer = _load_describer(config.images.describer, ws.root)
    kept: list[_Kept] = []
    try:
        for batch in _batched(seen, config.images.batch_size):
            kept += _look(batch, estimator, describer, config, exclusions)
    finally:
        estimator.close()
    _write_sources(ws, config, shard, kept, estimator, describer)
    return counted.number, [item.pose for item in kept]


class _Counter:
    """Counts what passes through."""

    def __init__(self) -> None:
        self.number = 0

    def count(self, items: Iterator[tuple[str, SourceImage]]) -> Iterator[tuple[str, SourceImage]]:
        for item in items:
            self.number += 1
            yield item


@lru_cache(maxsize=1)
def _load_estimator(config: EstimatorConfig, root: Path) -> PoseEstimator:
    return ESTIMATORS[config.backend](config, root)


@lru_cache(maxsize=1)
def _load_describer(config: DescriberConfig, root: Path) -> Describer:
    return DESCRIBERS[config.backend](config, root)


def _screened(
    images: Iterator[tuple[str, SourceImage]], config: PosesConfig, exclusions: Exclusions
) -> Iterator[_Seen]:
    for pose_id, image in images:
        judged = screen(image, config.images)
        if isinstance(judged, Problem):
            exclusions.add(pose_id, judged.reason, f"{image.place}: {judged.detail}")
        else:
            yield _Seen(pose_id, image, judged)


def _batched(seen: Iterator[_Seen], size: int) -> Iterator[list[_Seen]]:
    batch: list[_Seen] = []
    for item in seen:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _look(
    batch: Sequence[_Seen],
    estimator: PoseEstimator,
    describer: Describer,
    config: PosesConfig,
    exclusions: Exclusions,
) -> list[_Kept]:
    """Estimate and describe some images; those without people are excluded."""
    found = estimator.estimate([item.image_rgb for item in batch])
    with_people: list[tuple[_Seen, PoseSample]] = []
    for item, people in zip(batch, found, strict=True):
        pose = _pose_of(item, people, config)
        if pose.people:
            with_people.append((item, pose))
        else:
            detail = f"{item.image.place}: {len(people.scores)} persons found, none can be drawn"
            exclusions.add(item.pose_id, reasons.NO_PERSON, detail)
    if not with_people:
        return []
    images = [item.image_rgb for item, _ in with_people]
    descriptions = describer.describe(images, [len(pose.people) for _, pose in with_people])
    return [
        _Kept(pose, description, item.image)
        for (item, pose), description in zip(with_people, descriptions, strict=True)
    ]


def _pose_of(item: _Seen, people: FoundPeople, config: PosesConfig) -> PoseSample:
    height, width = item.image_rgb.shape[:2]
    return to_pose(
        item.pose_id,
        split_of(item.pose_id, config.val_fraction, config.test_fraction),
        people,
        (width, height),
        canvas_size(width, height, config.images),
        config.images.estimator,
    )


def _write_sources(
    ws: Workspace,
    config: PosesConfig,
    shard: str,
    kept: Sequence[_Kept],
    estimator: PoseEstimator,
    describer: Describer,
) -> None:
    rows = [
        {
            "pose_id": item.pose.pose_id,
            "split": item.pose.split,
            "description": item.description,
            "captioner": describer.version,
            "estimator": estimator.version,
            "source": config.images.asset,
            "image_sha256": item.image.sha256,
            "url_sha256": item.image.url_sha256,
        }
        for item in kept
    ]
    table = pd.DataFrame(rows) if rows else empty_table(POSE_SOURCES)
    write_table(ws.table_path(STAGE, f"{shard}.{SOURCES}"), table, POSE_SOURCES)
