"""Drawing heads on images: boxes, meshes, landmarks and pose axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import cv2
import numpy as np

from ml.flame.geometry import HeadGeometry
from ml.flame.params import SCALE
from ml.imaging.boxes import box_area
from ml.imaging.rasterizer import rasterize, vertex_normals
from ml.records.heads import Heads

Style = Literal["box", "mesh", "contour", "wireframe", "landmarks", "points", "pose"]
STYLES: tuple[Style, ...] = get_args(Style)
# One colour a head, in turn; readable on light and dark images (RGB).
COLOURS = (
    (255, 99, 71),
    (64, 196, 255),
    (255, 202, 40),
    (129, 212, 72),
    (224, 104, 255),
    (255, 145, 188),
    (38, 198, 160),
    (255, 167, 90),
)
_AXES = ((255, 70, 70), (80, 220, 80), (90, 140, 255))
_LANDMARK_LINES = (
    (17, 21, False), (22, 26, False), (27, 30, False), (31, 35, False), (36, 41, True),
    (42, 47, True), (48, 59, True),
)  # fmt: skip
"""First and last of the 68 landmarks on a line, and whether it is closed (iBUG's numbering from
0)."""
_MESH_OPACITY = 0.6
_SMALL_PX = 48
"""Heads smaller than this are outlined where larger ones are shaded, which would hide the face."""


def draw_heads(
    image_rgb: np.ndarray,
    heads: Heads,
    geometry: HeadGeometry | None,
    styles: Sequence[Style] = ("mesh", "box"),
    numbers: np.ndarray | None = None,
) -> np.ndarray:
    """Draw heads on a copy of an image.

    Args:
        image_rgb: (H, W, 3) uint8 RGB.
        heads: heads in the image's pixels; those without finite parameters get their box only.
        geometry: the head model's geometry; boxes alone do without.
        styles: what to draw, in this order; any of box, mesh (shaded; the outline of small heads),
            contour (the outline of each head and of its face), wireframe (visible edges), landmarks
            (the 68), points (the vertices of the face), pose (axes).
        numbers: (N,) whole numbers by which heads get their colours, such as those of tracks; their
            positions if left out.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: a style is unknown, or needs the geometry that is not given.
    """
    unknown = sorted(set(styles) - set(STYLES))
    if unknown:
        raise ValueError(f"draw_heads: styles {unknown} are unknown, expected some of {STYLES}")
    if geometry is None and set(styles) != {"box"}:
        raise ValueError(f"draw_heads: styles {styles} need a head model's geometry, got None")
    canvas = image_rgb.copy()
    posed = np.isfinite(heads.flame).all(axis=1) & (heads.flame[:, SCALE.start] > 0)
    numbers = np.arange(len(heads)) if numbers is None else numbers
    colours = [COLOURS[int(number) % len(COLOURS)] for number in numbers]
    for style in styles:
        small = np.sqrt(box_area(heads.boxes_xyxy)) < _SMALL_PX
        if style == "mesh" and geometry is not None:
            canvas = _draw_meshes(canvas, heads, geometry, posed & ~small, colours)
        for index in range(len(heads)):
            colour = colours[index]
            if style == "box":
                _draw_box(canvas, heads.boxes_xyxy[index], colour)
            elif posed[index] and geometry is not None:
                outlined = style == "mesh" and small[index]
                _draw_posed(
                    canvas, heads[[index]], geometry, "contour" if outlined else style, colour
                )
    return canvas


def _draw_posed(
    canvas: np.ndarray,
    head: Heads,
    geometry: HeadGeometry,
    style: Style,
    colour: tuple[int, int, int],
) -> None:
    """Draw one head in a style that needs its parameters and no depth buffer."""
    if style == "landmarks":
        _draw_points(canvas, geometry.landmarks_px(head.flame)[0])
    elif style == "contour":
        _draw_contours(canvas, head, geometry, colour)
    elif style == "points":
        _draw_face(canvas, geometry.vertices_px(head.flame)[0], geometry, colour)
    elif style == "wireframe":
        _draw_edges(canvas, geometry.vertices_xyz_px(head.flame)[0], geometry.faces, colour)
    elif style == "pose":
        _draw_axes(canvas, head, geometry)


def _draw_meshes(
    image: np.ndarray,
    heads: Heads,
    geometry: HeadGeometry,
    posed: np.ndarray,
    colours: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    height, width = image.shape[:2]
    canvas = image.astype(np.float32)
    vertices = geometry.vertices_xyz_px(heads.flame[posed])
    # Larger heads are taken to be nearer: the parameters carry no depth between heads.
    order = np.argsort(heads.flame[posed][:, SCALE.start])
    shown = np.array([colours[int(i)] for i in np.flatnonzero(posed)], np.float32)
    for index in order:
        mesh = np.ascontiguousarray(vertices[index], np.float32)
        face_index, barycentric, _ = rasterize(mesh, geometry.faces, height, width)
        covered = face_index >= 0
        normals = vertex_normals(mesh, geometry.faces)[geometry.faces[face_index[covered]]]
        normal = (normals * barycentric[covered][:, :, None]).sum(axis=1)
        light = 0.35 + 0.65 * np.abs(normal[:, 2]) / (np.linalg.norm(normal, axis=1) + 1e-6)
        shaded = shown[index] * light[:, None]
        canvas[covered] = (1 - _MESH_OPACITY) * canvas[covered] + _MESH_OPACITY * shaded
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _thickness(image: np.ndarray) -> int:
    return max(1, round(min(image.shape[:2]) / 300))


def _draw_box(image: np.ndarray, box: np.ndarray, colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = (round(float(v)) for v in box)
    cv2.rectangle(image, (left, top), (right, bottom), colour, _thickness(image), cv2.LINE_AA)


def _draw_points(image: np.ndarray, points: np.ndarray) -> None:
    for x, y in points:
        where = (round(float(x)), round(float(y)))
        cv2.circle(image, where, _thickness(image), (255, 255, 255), -1, cv2.LINE_AA)


def _draw_face(
    image: np.ndarray, vertices: np.ndarray, geometry: HeadGeometry, colour: tuple[int, int, int]
) -> None:
    """Mark the vertices of the face."""
    model = geometry.head_model
    if "face" in model.regions:
        vertices = vertices[np.isin(geometry.vertex_indices, model.region("face"))]
    radius = _thickness(image) // 2
    for x, y in np.floor(vertices).astype(int):
        cv2.circle(image, (int(x), int(y)), radius, colour, -1)


def _draw_edges(
    image: np.ndarray, vertices: np.ndarray, faces: np.ndarray, colour: tuple[int, int, int]
) -> None:
    """Outline the triangles that face the camera."""
    corners = vertices[faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    visible = first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]
    # OpenCV's whole numbers are the middles of pixels, ours their borders; 4 bits of fraction.
    points = np.round((corners[visible, :, :2] - 0.5) * 16).astype(np.int32)
    cv2.polylines(image, list(points), True, colour, 1, cv2.LINE_AA, shift=4)


def _draw_contours(
    image: np.ndarray, head: Heads, geometry: HeadGeometry, colour: tuple[int, int, int]
) -> None:
    """Outline a head, and its landmarks of jaw, brows, nose, eyes and mouth as lines."""
    height, width = image.shape[:2]
    mesh = np.ascontiguousarray(geometry.vertices_xyz_px(head.flame)[0], np.float32)
    covered = (rasterize(mesh, geometry.faces, height, width)[0] >= 0).astype(np.uint8)
    outlines, _ = cv2.findContours(covered, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, colour, _thickness(image), cv2.LINE_AA)
    points = np.round((geometry.landmarks_px(head.flame)[0] - 0.5) * 16).astype(np.int32)
    for first, last, closed in _LANDMARK_LINES:
        line = points[first : last + 1]
        cv2.polylines(image, [line], closed, colour, 1, cv2.LINE_AA, shift=4)


def _draw_axes(image: np.ndarray, head: Heads, geometry: HeadGeometry) -> None:
    rotation = geometry.rotations(head.flame)[0]
    box = head.boxes_xyxy[0]
    centre = (box[:2] + box[2:]) / 2
    length = float(np.sqrt(box_area(box))) * 0.6
    for axis, colour in enumerate(_AXES):
        tip = centre + length * rotation[:2, axis]
        start, end = (tuple(round(float(v)) for v in point) for point in (centre, tip))
        cv2.arrowedLine(
            image, start, end, colour, 2 * _thickness(image), cv2.LINE_AA, tipLength=0.2
        )
