"""One annotation file of the official VGGHeads release: its arrays, and ours made of them.

The release: `large/split_00000..00099/{images/*.jpg, annotations/*.npz, files.txt, metrics.json}`.
`files.txt` is an exclusion list. A `.npz` holds `bbox` and `extended_bbox` (N, 4) int xywh and
`3dmm_params` (N, 1, 413), whose scale and translation are DAD-3DNet's, relative to the extended
box. Source: the paper's data generation and the official annotation code.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.flame.frames import BOX_MARGIN, dad_crop_to_image, image_to_dad_crop
from ml.flame.params import NUM_PARAMETERS, SCALE
from ml.imaging.boxes import clip_boxes, expand_boxes, xywh_to_xyxy, xyxy_to_xywh
from ml.records.arrays import UnreadableArrays, read_arrays

KEYS = ("bbox", "extended_bbox", "3dmm_params")
IGNORED_KEY = "ignored_bbox"
"""Ours: boxes of heads without parameters. The official loader asks for its three keys by name and
does not see this one. A reader that knows it can ignore these heads, which would otherwise be
trained as background."""


class BadAnnotation(ValueError):
    """An annotation file cannot be used; the message says what in it is wrong."""


def _no_boxes() -> NDArray[np.int32]:
    return np.zeros((0, 4), np.int32)


@dataclass(frozen=True)
class OfficialHeads:
    """The arrays of one annotation file, checked when built.

    Attributes:
        bbox_xywh: (N, 4) int32, px.
        extended_xywh: (N, 4) int32, px; its origin is that of the parameters' frame.
        params: (N, 1, 413) float32, DAD-3DNet's convention.
        ignored_xywh: (M, 4) int32, px, see `IGNORED_KEY`.
    """

    bbox_xywh: NDArray[np.int32]
    extended_xywh: NDArray[np.int32]
    params: NDArray[np.float32]
    ignored_xywh: NDArray[np.int32] = field(default_factory=_no_boxes)

    def __post_init__(self) -> None:
        """Compare shapes and values."""
        count = len(self.bbox_xywh)
        expected = {
            "bbox": (self.bbox_xywh, (count, 4)),
            "extended_bbox": (self.extended_xywh, (count, 4)),
            "3dmm_params": (self.params, (count, 1, NUM_PARAMETERS)),
            IGNORED_KEY: (self.ignored_xywh, (len(self.ignored_xywh), 4)),
        }
        for name, (array, shape) in expected.items():
            if array.shape != shape:
                raise BadAnnotation(f"{name}: expected shape {shape}, got {array.shape}")
        for name, boxes in (("bbox", self.bbox_xywh), (IGNORED_KEY, self.ignored_xywh)):
            flat = (boxes[:, 2:] <= 0).any(axis=1)
            if flat.any():
                row = int(np.argmax(flat))
                raise BadAnnotation(f"{name}[{row}]: {boxes[row].tolist()} xywh has no area")
        wrong = np.argwhere(~np.isfinite(self.params))
        if len(wrong):
            head, _, column = (int(value) for value in wrong[0])
            raise BadAnnotation(f"3dmm_params[{head}, 0, {column}] is not finite")
        scale = self.params[:, 0, SCALE][:, 0]
        if (scale <= -1).any():
            head = int(np.argmax(scale <= -1))
            raise BadAnnotation(
                f"3dmm_params[{head}, 0, {SCALE.start}]: scale must be over -1 (0 px/m in "
                f"DAD-3DNet's convention), got {scale[head]:g}"
            )

    def __len__(self) -> int:
        return len(self.bbox_xywh)


@dataclass(frozen=True)
class ImageLabels:
    """The same heads in our convention.

    Attributes:
        boxes_xyxy: (N, 4) float32, image px.
        flame: (N, 413) float32, image frame, px; zeros where not valid.
        flame_valid: (N,) bool.
    """

    boxes_xyxy: NDArray[np.float32]
    flame: NDArray[np.float32]
    flame_valid: NDArray[np.bool_]


def to_official(labels: ImageLabels, width: int, height: int) -> OfficialHeads:
    """Convert our labels to those that the release writes.

    Boxes become whole pixels. The extended box is cut at the image's borders on each side alone;
    the official code shifts it there instead, which readers do not notice, for they use its origin
    and the parameters are stated relative to it.

    Args:
        labels: boxes and parameters, image frame.
        width: image width, px.
        height: image height, px.

    Returns:
        The arrays; heads without parameters among the ignored boxes.
    """
    whole = _whole_boxes(labels.boxes_xyxy, width, height)
    extended = clip_boxes(
        np.trunc(expand_boxes(whole.astype(np.float32), BOX_MARGIN)), width, height
    )
    valid = labels.flame_valid
    params = image_to_dad_crop(labels.flame[valid], extended[valid])
    return OfficialHeads(
        _xywh(whole[valid]),
        _xywh(extended[valid]),
        params[:, None].astype(np.float32),
        _xywh(whole[~valid]),
    )


def from_official(heads: OfficialHeads) -> ImageLabels:
    """Return the release's labels in our convention; ignored boxes come last, without parameters.

    Args:
        heads: the arrays of one file.

    Returns:
        Boxes and parameters, image frame.
    """
    known, ignored = len(heads), len(heads.ignored_xywh)
    boxes = np.concatenate([heads.bbox_xywh, heads.ignored_xywh]).astype(np.float32)
    flame = np.zeros((known + ignored, NUM_PARAMETERS), np.float32)
    origin = xywh_to_xyxy(heads.extended_xywh.astype(np.float64))
    flame[:known] = dad_crop_to_image(heads.params[:, 0], origin)
    return ImageLabels(xywh_to_xyxy(boxes), flame, np.arange(known + ignored) < known)


def encode_annotation(
    heads: OfficialHeads, derived: Mapping[str, NDArray[np.float32]] | None = None
) -> bytes:
    """Return the `.npz` file; the same arrays give the same bytes.

    Args:
        heads: the arrays.
        derived: more arrays with a row for each head, see `ml.release.derived`; the official
            loader asks for its keys by name and does not see them.

    Returns:
        The file's bytes; the ignored boxes are written only where there are any.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "bbox": heads.bbox_xywh,
        "extended_bbox": heads.extended_xywh,
        "3dmm_params": heads.params,
    }
    if len(heads.ignored_xywh):
        arrays[IGNORED_KEY] = heads.ignored_xywh
    arrays.update(derived or {})
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def decode_annotation(data: bytes | Path) -> OfficialHeads:
    """Read an annotation file; nothing in it is executed, and no size it claims is believed.

    Args:
        data: the file's bytes, or its path.

    Returns:
        The arrays, checked.

    Raises:
        BadAnnotation: it is no such file, a key is missing, or a value does not fit.
    """
    try:
        arrays = read_arrays(data, (*KEYS, IGNORED_KEY))
    except UnreadableArrays as error:
        raise BadAnnotation(f"annotation: {error}") from error
    if missing := [key for key in KEYS if key not in arrays]:
        raise BadAnnotation(f"annotation: keys {missing} are missing, got {sorted(arrays)}")
    return OfficialHeads(
        _whole(arrays["bbox"], "bbox"),
        _whole(arrays["extended_bbox"], "extended_bbox"),
        _floats(arrays["3dmm_params"]),
        _whole(arrays[IGNORED_KEY], IGNORED_KEY) if IGNORED_KEY in arrays else _no_boxes(),
    )


def _whole(array: NDArray[np.generic], key: str) -> NDArray[np.int32]:
    """Return boxes as int32.

    An empty one-dimensional array, as numpy writes no heads, has no rows.
    """
    if array.dtype.kind not in "biuf":
        raise BadAnnotation(f"{key}: expected numbers, got dtype {array.dtype}")
    values = np.asarray(array, np.float64)
    if values.size == 0:
        return _no_boxes()
    if not np.isfinite(values).all() or (np.abs(values) > 1e6).any():
        raise BadAnnotation(f"{key}: expected pixels, got a value beyond a million or no number")
    return np.trunc(values).astype(np.int32)


def _floats(array: NDArray[np.generic]) -> NDArray[np.float32]:
    if array.dtype.kind not in "biuf":
        raise BadAnnotation(f"3dmm_params: expected numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        values = np.asarray(array).astype(np.float32)
    return values.reshape(0, 1, NUM_PARAMETERS) if values.size == 0 else values


def _whole_boxes(boxes_xyxy: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Return boxes rounded to pixels inside the image, at least one pixel wide and high."""
    whole = clip_boxes(np.round(boxes_xyxy), width, height)
    low = np.minimum(whole[:, :2], np.array([width - 1, height - 1], np.float32))
    return np.concatenate([low, np.maximum(whole[:, 2:], low + 1)], axis=1)


def _xywh(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.asarray(xyxy_to_xywh(boxes_xyxy), np.float64).round().astype(np.int32).reshape(-1, 4)
