"""Images of labelled heads: boxes, and the near half of the head's mesh as points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml.flame.geometry import HeadGeometry
from ml.imaging.drawing import draw_boxes, enlarge

_BOX_RGB = (255, 210, 60)
_UNLABELLED_RGB = (235, 80, 80)
_POINT_RGB = (70, 235, 160)
# Images smaller than this are enlarged, so that points do not cover small heads.
_SMALLEST_SIDE_PX = 512
_VERTEX_STEP = 4


def draw_pseudo_labels(
    image_rgb: NDArray[np.uint8],
    boxes_xyxy: NDArray[np.floating],
    flame: Sequence[NDArray[np.floating] | None],
    geometry: HeadGeometry,
) -> NDArray[np.uint8]:
    """Draw boxes and projected mesh points; heads without parameters get a red box only.

    Args:
        image_rgb: (H, W, 3) uint8.
        boxes_xyxy: (N, 4) image frame, px.
        flame: N times (413,) image frame, or None.
        geometry: the head model's vertices.

    Returns:
        (H', W', 3) uint8 RGB, the image enlarged by a whole number if it is small.
    """
    has_flame = np.array([parameters is not None for parameters in flame], bool)
    canvas = draw_meshes(image_rgb, [p for p in flame if p is not None], geometry)
    zoom = canvas.shape[0] // image_rgb.shape[0]
    boxes = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)
    canvas = draw_boxes(canvas, boxes[has_flame], _BOX_RGB, zoom=zoom)
    return draw_boxes(canvas, boxes[~has_flame], _UNLABELLED_RGB, zoom=zoom)


def draw_meshes(
    image_rgb: NDArray[np.uint8],
    flame: Sequence[NDArray[np.floating]],
    geometry: HeadGeometry,
) -> NDArray[np.uint8]:
    """Draw projected mesh points.

    Args:
        image_rgb: (H, W, 3) uint8.
        flame: N times (413,) image frame.
        geometry: the head model's vertices.

    Returns:
        (H', W', 3) uint8 RGB, the image enlarged by a whole number if it is small.
    """
    zoom = max(1, -(-_SMALLEST_SIDE_PX // max(image_rgb.shape[:2])))
    canvas = enlarge(image_rgb, zoom).copy()
    for parameters in flame:
        _draw_points(canvas, zoom * geometry.vertices_xyz_px(parameters[None])[0])
    return canvas


def _draw_points(canvas: NDArray[np.uint8], vertices_px: NDArray[np.floating]) -> None:
    # z grows away from the camera.
    near = vertices_px[vertices_px[:, 2] < np.median(vertices_px[:, 2])][::_VERTEX_STEP]
    height, width = canvas.shape[:2]
    columns, rows = np.floor(near[:, :2]).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    canvas[rows[inside], columns[inside]] = _POINT_RGB
