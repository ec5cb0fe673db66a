"""Labels of images: which heads there are, and which of them are targets.

`LabelTable` holds boxes and flags of a whole dataset as flat arrays. The 413 numbers of a head are
read when an image is asked for, and of a large dataset kept in a file. Meshes are projected then,
and not kept.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.flame.params import SCALE
from ml.records.config import Fraction, NonNegative, StageConfig
from ml.records.heads import NUM_FLAME_PARAMETERS
from ml.records.tables import RowGroups, stack
from ml.training_data.augmentation import NUM_OUTLINE_POINTS, head_outlines

Array = NDArray[np.float32]
Project = Callable[[Array], Array]
"""(N, 413) parameters -> (N, V, 3) projected vertices, image frame, px."""

_CHUNK: Final = 256
"""Heads that are projected together; the last bits of sums may depend on this number."""
_KEPT_CHUNKS: Final = 1024
"""Chunks whose outlines are cached: 64 MB."""
_HEAD_BYTES: Final = 4 * NUM_FLAME_PARAMETERS


class LabelLimits(StageConfig):
    """Which heads are hardly visible: neither targets nor background."""

    min_visible: Fraction = 0.2
    """Smallest visible fraction of a head; exact labels only."""
    min_inside: Fraction = 0.35
    """Smallest fraction of a head, or after augmentation of its box, inside the image."""
    min_side_px: NonNegative = 3.0
    """Smallest geometric mean of a box's sides, network px."""


class WrongLabels(ValueError):
    """Labels that training cannot use; the message says why."""


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
        flame_valid: (N,) bool.
        ignore: (N,) bool.
    """

    sample_ids: NDArray[np.object_]
    boxes_xyxy: Array
    flame_valid: NDArray[np.bool_]
    ignore: NDArray[np.bool_]


class LabelSource(Protocol):
    """Labelled heads in parts, whose parameters are read apart from the rest.

    Picklable: processes of a training read the parameters that they need.
    """

    def __len__(self) -> int:
        """Return the number of parts."""
        ...

    def rows(self, part: int) -> LabelRows:
        """Return a part without parameters."""
        ...

    def flame(self, part: int) -> Array:
        """Return (N, 413) parameters of a part's heads, image px; zeros where not valid."""
        ...


class OneFrame:
    """Rows in memory in place of the row groups of a file: a single part."""

    def __init__(self, rows: pd.DataFrame) -> None:
        """Keep the rows."""
        self._rows = rows

    def __len__(self) -> int:
        return 1

    def read(self, part: int, columns: Sequence[str]) -> pd.DataFrame:
        """Return columns of all rows."""
        return self._rows[list(columns)]


class PseudoHeads:
    """Labels from the annotation stage's table.

    Heads the annotator flagged as too small have a box but no parameters; they are ignored.
    """

    def __init__(self, parts: RowGroups | OneFrame) -> None:
        """Name the table.

        Args:
            parts: row groups of `HEADS` or a table that extends it.
        """
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts)

    def rows(self, part: int) -> LabelRows:
        """Return a part without parameters."""
        heads = self._parts.read(part, ("sample_id", "bbox_xywh", "flame_status"))
        valid = _labelled(heads)
        return _rows(heads, valid, ~valid)

    def flame(self, part: int) -> Array:
        """Return parameters of a part."""
        heads = self._parts.read(part, ("flame", "flame_status"))
        return _parameters(heads, _labelled(heads))


class ExactHeads:
    """Labels from the renderer's truth."""

    def __init__(self, parts: RowGroups | OneFrame, limits: LabelLimits) -> None:
        """Name the tables.

        Args:
            parts: row groups of `TRUTH`.
            limits: which heads are hardly visible.
        """
        self._parts, self._limits = parts, limits

    def __len__(self) -> int:
        return len(self._parts)

    def rows(self, part: int) -> LabelRows:
        """Return a part without parameters."""
        truth = self._parts.read(part, ("sample_id", "bbox_xywh", "visible", "inside"))
        hidden = truth["visible"] < self._limits.min_visible
        hidden |= truth["inside"] < self._limits.min_inside
        return _rows(truth, np.ones(len(truth), bool), hidden.to_numpy())

    def flame(self, part: int) -> Array:
        """Return parameters of a part."""
        truth = self._parts.read(part, ("flame",))
        return _parameters(truth, np.ones(len(truth), bool))


def pseudo_labels(heads: pd.DataFrame, project: Project | None = None) -> LabelTable:
    """Return labels from the annotation stage's table, by image.

    Args:
        heads: rows of `HEADS` or a table that extends it.
        project: head model's projection, to bound rotated boxes tightly; ellipses without it.

    Returns:
        sample id -> labels, for images with at least one row.
    """
    return LabelTable(PseudoHeads(OneFrame(heads)), project)


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
    return LabelTable(ExactHeads(OneFrame(truth), limits), project)


def _labelled(heads: pd.DataFrame) -> NDArray[np.bool_]:
    return (heads["flame_status"] == "ok").to_numpy()


def _rows(heads: pd.DataFrame, valid: NDArray[np.bool_], ignore: NDArray[np.bool_]) -> LabelRows:
    boxes = stack(heads["bbox_xywh"]).astype(np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return LabelRows(heads["sample_id"].to_numpy(object), boxes, valid, ignore)


def _parameters(heads: pd.DataFrame, valid: NDArray[np.bool_]) -> Array:
    flame = np.zeros((len(heads), NUM_FLAME_PARAMETERS), np.float32)
    if valid.any():
        flame[valid] = stack(heads["flame"][valid])
    return flame


class LabelTable(Mapping[str, HeadLabels]):
    """Labels by image, read-only; grows with the heads by their boxes alone if it has a file.

    Equal rows give equal outlines however they arrive: meshes are projected in chunks that are
    counted over the whole table.
    """

    def __init__(
        self, source: LabelSource, project: Project | None = None, file: Path | None = None
    ) -> None:
        """Read everything but the parameters.

        Args:
            source: the heads.
            project: head model's projection, to bound rotated boxes tightly; ellipses without it.
            file: where to keep the parameters of the heads; None keeps them in memory.
        """
        self._project = project
        self._chunks: OrderedDict[int, Array] = OrderedDict()
        parts = [source.rows(part) for part in range(len(source))]
        ids, boxes, valid, ignore = (
            np.concatenate(arrays) for arrays in zip(_nothing(), *parts, strict=True)
        )
        starts = np.cumsum([0, *(len(part.boxes_xyxy) for part in parts)])
        self._flame = _Parameters(source, starts, file)
        self._boxes, self._valid, self._ignore = boxes, valid, ignore
        codes, names = pd.factorize(ids)
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[self._order], np.arange(len(names) + 1))
        self._number = {str(name): number for number, name in enumerate(names)}
        self._valid_rows = np.flatnonzero(valid)

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
        return {**self.__dict__, "_chunks": OrderedDict()}

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
        rows, _ = self._rows_of(sample_ids)
        return len(rows), int(self._ignore[rows].sum())

    def shown(self, sample_ids: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return heads that have parameters and are not ignored, as `shown_heads`.

        Reads no parameters.
        """
        rows, image = self._rows_of(sample_ids)
        shown = self._valid[rows] & ~self._ignore[rows]
        return image[shown], self._boxes[rows[shown]].astype(np.float64)

    def _rows_of(self, sample_ids: Iterable[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows of images in their order, and for each the position of its image."""
        numbers = np.array([self._number.get(i, -1) for i in sample_ids], np.intp)
        there = np.flatnonzero(numbers >= 0)
        first, last = self._starts[numbers[there]], self._starts[numbers[there] + 1]
        counts = last - first
        image = np.repeat(there, counts)
        within = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows: NDArray[np.intp] = self._order[np.repeat(first, counts) + within]
        return rows, image

    def without_outlines(self, sample_id: str) -> HeadLabels:
        """Return an image's labels with outlines of zeros: quick, for counting and checking.

        Raises:
            KeyError: the image has none.
        """
        rows = self.rows(sample_id)
        return self._labels(rows, np.zeros((len(rows), NUM_OUTLINE_POINTS, 2), np.float32))

    def _labels(self, rows: NDArray[np.intp], outlines: Array) -> HeadLabels:
        flame = self._flame[rows]
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
            vertices = list(self._project(self._flame[rows]))
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
    if isinstance(labels, LabelTable):
        return labels.shown(sample_ids)
    indices, boxes = [], [np.zeros((0, 4))]
    for index, sample_id in enumerate(sample_ids):
        heads = labels.get(sample_id)
        if heads is not None:
            shown = heads.boxes_xyxy[heads.flame_valid & ~heads.ignore]
            boxes.append(shown.astype(np.float64))
            indices.append(np.full(len(shown), index))
    return np.concatenate([np.zeros(0, np.int64), *indices]), np.concatenate(boxes)


class _Parameters:
    """The 413 numbers of all heads: in memory, or in a file that parts are written to when needed.

    Reading gigabytes before the first step would take minutes. The file is read, not mapped: pages
    of a map would count as memory of the training.
    """

    def __init__(self, source: LabelSource, starts: NDArray[np.intp], file: Path | None) -> None:
        """Prepare an empty file, or read everything.

        Args:
            source: the heads.
            starts: the first row of each part, and the number of rows.
            file: none: keep all in memory.
        """
        self._starts, self._file = starts, file
        self._opened: tuple[FileIO, NDArray[np.uint8]] | None = None
        self._all = np.zeros((0, NUM_FLAME_PARAMETERS), np.float32)
        if file is None:
            parts = (source.flame(part) for part in range(len(source)))
            self._all = np.concatenate([self._all, *parts])
            return
        self._source = source
        file.parent.mkdir(parents=True, exist_ok=True)
        for path, size in ((file, starts[-1] * _HEAD_BYTES), (_flags(file), len(source))):
            path.write_bytes(b"")
            os.truncate(path, size)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    def __getitem__(self, rows: NDArray[np.intp]) -> Array:
        """Return (N, 413) parameters of some rows."""
        if self._file is None or not len(rows):
            return self._all[rows] if self._file is None else self._all
        if self._opened is None:
            flags = np.memmap(_flags(self._file), np.uint8, "r+")
            self._opened = FileIO(self._file, "r+"), flags
        opened, there = self._opened[0].fileno(), self._opened[1]
        for part in np.unique(np.searchsorted(self._starts, rows, side="right") - 1):
            if not there[part]:
                # Two processes may write the same part, with the same bytes.
                written = np.ascontiguousarray(self._source.flame(part)).data.cast("B")
                _write_all(opened, written, self._starts[part] * _HEAD_BYTES)
                there[part] = 1
        flame = np.empty((len(rows), NUM_FLAME_PARAMETERS), np.float32)
        for row, values in zip(rows, flame, strict=True):
            os.preadv(opened, [values.data], row * _HEAD_BYTES)
        return flame


def _flags(file: Path) -> Path:
    """Return the file that says which parts were written, a byte each."""
    return file.with_name(f"{file.name}.parts")


def _write_all(opened: int, data: memoryview, offset: int) -> None:
    """Write bytes to a place of an open file; a single call may write less than all."""
    while data:
        done = os.pwrite(opened, data, offset)
        data, offset = data[done:], offset + done


def _nothing() -> LabelRows:
    none = np.zeros(0, bool)
    return LabelRows(np.zeros(0, object), np.zeros((0, 4), np.float32), none, none)
