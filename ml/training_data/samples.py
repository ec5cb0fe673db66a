"""Images with their head labels, read from shards and tables; damage becomes an exclusion."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.flame.params import SCALE
from ml.imaging.io import UnreadableImage, decode_image
from ml.imaging.reading import read_image
from ml.records import reasons
from ml.records.config import Fraction, NonNegative, StageConfig
from ml.records.exclusions import Exclusions
from ml.records.heads import NUM_FLAME_PARAMETERS
from ml.records.progress import progress
from ml.records.shards import DamagedSample, ShardReader
from ml.records.tables import stack
from ml.training_data.augmentation import NUM_OUTLINE_POINTS, head_outlines

_LOGGER = logging.getLogger(__name__)

Array = NDArray[np.float32]
Project = Callable[[Array], Array]
"""(N, 413) parameters -> (N, V, 3) projected vertices, image frame, px."""


class LabelLimits(StageConfig):
    """Which heads are hardly visible: neither targets nor background."""

    min_visible: Fraction = 0.2
    """Smallest fraction of a head that is in front of everything else; exact labels only."""
    min_inside: Fraction = 0.35
    """Smallest fraction of a head, or after augmentation of its box, inside the image."""
    min_side_px: NonNegative = 3.0
    """Smallest geometric mean of a box's sides, network px."""


@dataclass(frozen=True)
class HeadLabels:
    """The labelled heads of one image, checked when built.

    Attributes:
        boxes_xyxy: (N, 4) float32, px.
        flame: (N, 413) float32, px; zeros where not valid.
        flame_valid: (N,) bool.
        ignore: (N,) bool, see `LabelLimits`.
        outlines: (N, 32, 2) float32, px, see `head_outlines`.
    """

    boxes_xyxy: Array
    flame: Array
    flame_valid: NDArray[np.bool_]
    ignore: NDArray[np.bool_]
    outlines: Array

    def __post_init__(self) -> None:
        """Compare shapes."""
        count = len(self.boxes_xyxy)
        expected = {
            "boxes_xyxy": (count, 4),
            "flame": (count, NUM_FLAME_PARAMETERS),
            "flame_valid": (count,),
            "ignore": (count,),
            "outlines": (count, NUM_OUTLINE_POINTS, 2),
        }
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"HeadLabels.{name}: expected shape {shape}, got {got}")

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    @staticmethod
    def empty() -> HeadLabels:
        """An image without heads.

        Returns:
            Labels of length 0.
        """
        return HeadLabels(
            np.zeros((0, 4), np.float32),
            np.zeros((0, NUM_FLAME_PARAMETERS), np.float32),
            np.zeros(0, bool),
            np.zeros(0, bool),
            np.zeros((0, NUM_OUTLINE_POINTS, 2), np.float32),
        )


@dataclass(frozen=True)
class HeadSample:
    """An image and its heads.

    Attributes:
        sample_id: the image's id.
        image_rgb: (H, W, 3) uint8.
        labels: heads in the image's px.
    """

    sample_id: str
    image_rgb: NDArray[np.uint8]
    labels: HeadLabels


def pseudo_labels(heads: pd.DataFrame, project: Project | None = None) -> dict[str, HeadLabels]:
    """Labels from the annotation stage's table, by image.

    Heads the annotator flagged as too small have a box but no parameters; they are ignored.

    Args:
        heads: rows of `HEADS` or a table that extends it.
        project: head model's projection, to bound rotated boxes tightly; ellipses without it.

    Returns:
        sample id -> labels, for images with at least one row.
    """
    valid = (heads["flame_status"] == "ok").to_numpy()
    return _labels_by_image(heads, valid, ~valid, project)


def exact_labels(
    truth: pd.DataFrame, limits: LabelLimits, project: Project | None = None
) -> dict[str, HeadLabels]:
    """Labels from the renderer's truth, by image.

    Args:
        truth: rows of `TRUTH`.
        limits: which heads are hardly visible.
        project: as in `pseudo_labels`.

    Returns:
        sample id -> labels, for images with at least one head.
    """
    hidden = (truth["visible"] < limits.min_visible) | (truth["inside"] < limits.min_inside)
    return _labels_by_image(truth, np.ones(len(truth), bool), hidden.to_numpy(), project)


def _labels_by_image(
    heads: pd.DataFrame,
    valid: NDArray[np.bool_],
    ignore: NDArray[np.bool_],
    project: Project | None,
) -> dict[str, HeadLabels]:
    """Group the rows of a heads table by image, keeping their order."""
    if not len(heads):
        return {}
    boxes = stack(heads["bbox_xywh"]).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    flame = np.zeros((len(heads), NUM_FLAME_PARAMETERS), np.float32)
    flame[valid] = stack(heads["flame"][valid]) if valid.any() else 0
    outlines = head_outlines(boxes, _vertices(flame, valid, project))
    groups = heads.groupby("sample_id", sort=False).indices
    return {
        str(sample_id): HeadLabels(
            boxes[rows], flame[rows], valid[rows], ignore[rows], outlines[rows]
        )
        for sample_id, rows in groups.items()
    }


def _vertices(
    flame: Array, valid: NDArray[np.bool_], project: Project | None, chunk: int = 256
) -> list[Array | None]:
    """Projected vertices of the heads that have parameters, in chunks to bound memory."""
    vertices: list[Array | None] = [None] * len(flame)
    if project is None:
        return vertices
    rows = np.flatnonzero(valid)
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        for row, points in zip(part, project(flame[part]), strict=True):
            vertices[row] = points
    return vertices


@dataclass
class HeadSamples:
    """Random access to labelled images; decoded images are kept while they fit the budget.

    Picklable: readers are opened in each process when first needed.

    Attributes:
        sample_ids: ids in order.
        shards: tar file of each sample.
        labels: by sample id; an image without entry has no heads.
        cache_bytes: budget for decoded images.
    """

    sample_ids: Sequence[str]
    shards: Sequence[Path]
    labels: Mapping[str, HeadLabels]
    cache_bytes: int = 0
    _images: dict[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    _cached_bytes: int = 0
    _readers: dict[tuple[int, Path], ShardReader] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> HeadSample:
        sample_id = self.sample_ids[index]
        image = self._images.get(sample_id)
        if image is None:
            image = self._decode(index)
        return HeadSample(sample_id, image, self.labels.get(sample_id, HeadLabels.empty()))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_readers": {}}

    def _decode(self, index: int) -> NDArray[np.uint8]:
        """Read and decode one image; keep it if there is room."""
        sample_id = self.sample_ids[index]
        try:
            return self._remember(sample_id, decode_image(self._reader(index).read(sample_id)))
        except UnreadableImage as error:
            raise DamagedSample(self.shards[index], sample_id, str(error)) from error

    def _reader(self, index: int) -> ShardReader:
        """The open shard of a sample; each process opens its own."""
        key = (os.getpid(), self.shards[index])
        if key not in self._readers:
            self._readers[key] = ShardReader(self.shards[index])
        return self._readers[key]

    def _remember(self, sample_id: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._cached_bytes + image.nbytes <= self.cache_bytes:
            self._images[sample_id] = image
            self._cached_bytes += image.nbytes
        return image

    def without_damaged(self, exclusions: Exclusions) -> HeadSamples:
        """Decode every image once and leave out the damaged ones, each with a row.

        Args:
            exclusions: receives id, reason and detail of what is left out.

        Returns:
            The readable samples, with what the budget allows already decoded.
        """
        kept: list[int] = []
        for index in progress(range(len(self)), "reading images"):
            sample_id = self.sample_ids[index]
            problem = _label_problem(self.labels.get(sample_id))
            if problem:
                exclusions.add(sample_id, reasons.DAMAGED_LABEL, problem)
                continue
            image = read_image(self._reader(index), sample_id, exclusions)
            if image is not None:
                self._remember(sample_id, image)
                kept.append(index)
        return HeadSamples(
            [self.sample_ids[i] for i in kept],
            [self.shards[i] for i in kept],
            self.labels,
            self.cache_bytes,
            self._images,
            self._cached_bytes,
        )


def _label_problem(labels: HeadLabels | None) -> str | None:
    """What is wrong with an image's labels, None if nothing."""
    if labels is None:
        return None
    for name in ("boxes_xyxy", "flame"):
        bad = np.argwhere(~np.isfinite(getattr(labels, name)))
        if len(bad):
            head, column = (int(value) for value in bad[0])
            return f"head {head}: {name}[{column}] is not finite"
    sides = labels.boxes_xyxy[:, 2:] - labels.boxes_xyxy[:, :2]
    if (sides <= 0).any():
        head = int(np.argmax((sides <= 0).any(axis=1)))
        return f"head {head}: box {labels.boxes_xyxy[head].tolist()} has no area"
    scale = labels.flame[labels.flame_valid, SCALE]
    if (scale <= 0).any():
        return f"scale must be > 0 px/m, got {scale.min():g}"
    return None
