"""Labels of images: which heads there are, and which of them are targets.

`LabelTable` holds the labels of a whole dataset as flat arrays, the 413 numbers of a head in a
file if they are many. Meshes are projected when an image is asked for, and not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.flame.params import SCALE
from ml.records.config import Fraction, NonNegative, StageConfig
from ml.records.heads import NUM_FLAME_PARAMETERS
from ml.records.tables import stack
from ml.training_data.augmentation import NUM_OUTLINE_POINTS, head_outlines

Array = NDArray[np.float32]
Project = Callable[[Array], Array]
"""(N, 413) parameters -> (N, V, 3) projected vertices, image frame, px."""

_CHUNK: Final = 256
"""Heads that are projected together; the last bits of sums may depend on this number."""
_KEPT_CHUNKS: Final = 1024
"""Chunks whose outlines are cached: 64 MB."""


class LabelLimits(StageConfig):
    """Which heads are hardly visible: neither targets nor background."""

    min_visible: Fraction = 0.2
    """Smallest visible fraction of a head; exact labels only."""
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
        """Return an image without heads.

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


class LabelRows(NamedTuple):
    """Labelled heads of some images, in the order of their table.

    Attributes:
        sample_ids: N ids; an image's rows need not be adjacent.
        boxes_xyxy: (N, 4) float32, px.
        flame: (N, 413) float32, px; zeros where not valid.
        flame_valid: (N,) bool.
        ignore: (N,) bool.
    """

    sample_ids: NDArray[np.object_]
    boxes_xyxy: Array
    flame: Array
    flame_valid: NDArray[np.bool_]
    ignore: NDArray[np.bool_]


def pseudo_rows(heads: pd.DataFrame) -> LabelRows:
    """Return labels from rows of the annotation stage's table.

    Heads the annotator flagged as too small have a box but no parameters; they are ignored.

    Args:
        heads: rows of `HEADS` or a table that extends it.
    """
    valid = (heads["flame_status"] == "ok").to_numpy()
    return _rows(heads, valid, ~valid)


def exact_rows(truth: pd.DataFrame, limits: LabelLimits) -> LabelRows:
    """Return labels from rows of the renderer's truth.

    Args:
        truth: rows of `TRUTH`.
        limits: which heads are hardly visible.
    """
    hidden = (truth["visible"] < limits.min_visible) | (truth["inside"] < limits.min_inside)
    return _rows(truth, np.ones(len(truth), bool), hidden.to_numpy())


def pseudo_labels(heads: pd.DataFrame, project: Project | None = None) -> LabelTable:
    """Return labels from the annotation stage's table, by image.

    Args:
        heads: rows of `HEADS` or a table that extends it.
        project: head model's projection, to bound rotated boxes tightly; ellipses without it.

    Returns:
        sample id -> labels, for images with at least one row.
    """
    return LabelTable([pseudo_rows(heads)], project)


def exact_labels(
    truth: pd.DataFrame, limits: LabelLimits, project: Project | None = None
) -> LabelTable:
    """Return labels from the renderer's truth, by image.

    Args:
        truth: rows of `TRUTH`.
        limits: which heads are hardly visible.
        project: as in `pseudo_labels`.

    Returns:
        sample id -> labels, for images with at least one head.
    """
    return LabelTable([exact_rows(truth, limits)], project)


def _rows(heads: pd.DataFrame, valid: NDArray[np.bool_], ignore: NDArray[np.bool_]) -> LabelRows:
    boxes = stack(heads["bbox_xywh"]).astype(np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    flame = np.zeros((len(heads), NUM_FLAME_PARAMETERS), np.float32)
    if valid.any():
        flame[valid] = stack(heads["flame"][valid])
    return LabelRows(heads["sample_id"].to_numpy(object), boxes, flame, valid, ignore)


class LabelTable(Mapping[str, HeadLabels]):
    """Labels by image, read-only; grows with the heads by their boxes alone if it has a file.

    Equal rows give equal outlines however they arrive: meshes are projected in chunks that are
    counted over the whole table.
    """

    def __init__(
        self, parts: Iterable[LabelRows], project: Project | None = None, file: Path | None = None
    ) -> None:
        """Collect the parts.

        Args:
            parts: rows; one part is in memory at a time.
            project: head model's projection, to bound rotated boxes tightly; ellipses without it.
            file: where to keep the parameters of the heads; None keeps them in memory.
        """
        self._project, self._file = project, file
        self._chunks: OrderedDict[int, Array] = OrderedDict()
        ids, boxes, flames, valid, ignore, bad = _collected(parts, file)
        self._flame = _opened(file, len(boxes)) if file else flames
        self._boxes, self._valid, self._ignore = boxes, valid, ignore
        codes, names = pd.factorize(ids)
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[self._order], np.arange(len(names) + 1))
        self._number = {str(name): number for number, name in enumerate(names)}
        self._valid_rows = np.flatnonzero(valid)
        self.suspects: frozenset[str] = frozenset(str(name) for name in ids[bad])
        """Images with a value that is not finite, a box without area or a scale that is not > 0."""

    def __len__(self) -> int:
        return len(self._number)

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._number

    def __getitem__(self, sample_id: str) -> HeadLabels:
        rows = self.rows(sample_id)
        return self._labels(rows, self._outlines(rows))

    def __getstate__(self) -> dict[str, object]:
        flame = None if self._file else self._flame
        return {**self.__dict__, "_flame": flame, "_chunks": OrderedDict()}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if self._file:
            self._flame = _opened(self._file, len(self._boxes))

    def rows(self, sample_id: str) -> NDArray[np.intp]:
        """Return numbers of an image's rows.

        Raises:
            KeyError: the image has none.
        """
        number = self._number[sample_id]
        rows: NDArray[np.intp] = self._order[self._starts[number] : self._starts[number + 1]]
        return rows

    def count(self, sample_ids: Iterable[str]) -> tuple[int, int]:
        """Return how many heads some images have, and how many of these are ignored.

        Reads no parameters: of a million images that would be gigabytes.

        Args:
            sample_ids: the images; one without rows has no heads.
        """
        found = [number for i in sample_ids if (number := self._number.get(i)) is not None]
        numbers = np.array(found, np.intp)
        ignored = np.concatenate([[0], np.cumsum(self._ignore[self._order], dtype=np.int64)])
        first, last = self._starts[numbers], self._starts[numbers + 1]
        return int((last - first).sum()), int((ignored[last] - ignored[first]).sum())

    def without_outlines(self, sample_id: str) -> HeadLabels:
        """Return an image's labels with outlines of zeros: quick, for counting and checking.

        Raises:
            KeyError: the image has none.
        """
        rows = self.rows(sample_id)
        return self._labels(rows, np.zeros((len(rows), NUM_OUTLINE_POINTS, 2), np.float32))

    def _labels(self, rows: NDArray[np.intp], outlines: Array) -> HeadLabels:
        flame = np.array(self._flame[rows])
        return HeadLabels(self._boxes[rows], flame, self._valid[rows], self._ignore[rows], outlines)

    def _outlines(self, rows: NDArray[np.intp]) -> Array:
        if self._project is None:
            return head_outlines(self._boxes[rows], [None] * len(rows))
        outlines = head_outlines(self._boxes[rows], [None] * len(rows))
        for position in np.flatnonzero(self._valid[rows]):
            place = int(np.searchsorted(self._valid_rows, rows[position]))
            outlines[position] = self._chunk(place // _CHUNK)[place % _CHUNK]
        return outlines

    def _chunk(self, number: int) -> Array:
        """Return outlines of the heads of a chunk that have parameters."""
        if number not in self._chunks:
            assert self._project is not None
            rows = self._valid_rows[number * _CHUNK : (number + 1) * _CHUNK]
            vertices = list(self._project(np.array(self._flame[rows])))
            self._chunks[number] = head_outlines(self._boxes[rows], vertices)
            if len(self._chunks) > _KEPT_CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(number)
        return self._chunks[number]


def labels_of(labels: Mapping[str, HeadLabels], sample_id: str) -> HeadLabels | None:
    """Return an image's labels for counting and checking, whose outlines may be zeros.

    None without any.

    Args:
        labels: by sample id.
        sample_id: the image.
    """
    if not isinstance(labels, LabelTable):
        return labels.get(sample_id)
    return labels.without_outlines(sample_id) if sample_id in labels else None


def label_problem(labels: Mapping[str, HeadLabels], sample_id: str) -> str | None:
    """Return the fault of an image's labels, None if there is none.

    Args:
        labels: by sample id.
        sample_id: the image.
    """
    if isinstance(labels, LabelTable) and sample_id not in labels.suspects:
        return None
    heads = labels_of(labels, sample_id)
    if heads is None:
        return None
    for name in ("boxes_xyxy", "flame"):
        bad = np.argwhere(~np.isfinite(getattr(heads, name)))
        if len(bad):
            head, column = (int(value) for value in bad[0])
            return f"head {head}: {name}[{column}] is not finite"
    sides = heads.boxes_xyxy[:, 2:] - heads.boxes_xyxy[:, :2]
    if (sides <= 0).any():
        head = int(np.argmax((sides <= 0).any(axis=1)))
        return f"head {head}: box {heads.boxes_xyxy[head].tolist()} has no area"
    scale = heads.flame[heads.flame_valid, SCALE]
    if (scale <= 0).any():
        return f"scale must be > 0 px/m, got {scale.min():g}"
    return None


def count_heads(labels: Mapping[str, HeadLabels], sample_ids: Sequence[str]) -> tuple[int, int]:
    """Return the number of heads of some images, and of ignored ones among them.

    Args:
        labels: by sample id.
        sample_ids: the images.
    """
    if isinstance(labels, LabelTable):
        return labels.count(sample_ids)
    found = [heads for i in sample_ids if (heads := labels.get(i)) is not None]
    return sum(map(len, found)), sum(int(heads.ignore.sum()) for heads in found)


def shown_heads(
    labels: Mapping[str, HeadLabels], sample_ids: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return heads that have parameters and are not ignored.

    Args:
        labels: by sample id.
        sample_ids: the images.

    Returns:
        (N,) which image each is in, and (N, 4) its box, xyxy image px.
    """
    indices, boxes = [], [np.zeros((0, 4))]
    for index, sample_id in enumerate(sample_ids):
        heads = labels_of(labels, sample_id)
        if heads is not None:
            shown = heads.boxes_xyxy[heads.flame_valid & ~heads.ignore]
            boxes.append(shown.astype(np.float64))
            indices.append(np.full(len(shown), index))
    return np.concatenate([np.zeros(0, np.int64), *indices]), np.concatenate(boxes)


def _collected(
    parts: Iterable[LabelRows], file: Path | None
) -> tuple[
    NDArray[np.object_], Array, Array, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]
]:
    """Return ids, boxes, parameters (none if they go to a file), flags, and wrong rows."""
    flames, rest = [np.zeros((0, NUM_FLAME_PARAMETERS), np.float32)], [_nothing()]
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    for part in parts:
        sides = part.boxes_xyxy[:, 2:] - part.boxes_xyxy[:, :2]
        bad = ~np.isfinite(part.boxes_xyxy).all(axis=1) | ~np.isfinite(part.flame).all(axis=1)
        bad |= ~(sides > 0).all(axis=1) | (part.flame_valid & ~(part.flame[:, SCALE] > 0).ravel())
        rest.append((part.sample_ids, part.boxes_xyxy, part.flame_valid, part.ignore, bad))
        if file:
            with file.open("ab") as opened:
                np.ascontiguousarray(part.flame, np.float32).tofile(opened)
        else:
            flames.append(part.flame)
    ids, boxes, valid, ignore, wrong = (
        np.concatenate(arrays) for arrays in zip(*rest, strict=True)
    )
    return ids, boxes, np.concatenate(flames), valid, ignore, wrong


def _nothing() -> tuple[NDArray[np.object_], Array, *tuple[NDArray[np.bool_], ...]]:
    none = np.zeros(0, bool)
    return np.zeros(0, object), np.zeros((0, 4), np.float32), none, none, none


def _opened(file: Path, count: int) -> Array:
    if count == 0:
        return np.zeros((0, NUM_FLAME_PARAMETERS), np.float32)
    return np.memmap(file, np.float32, "r", shape=(count, NUM_FLAME_PARAMETERS))
