"""Exact ground truth of a rendered head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from ml.generation.renderer.meshes import Mesh
from ml.generation.renderer.parts import in_head_box
from ml.imaging.rasterizer import Float32Array, Int32Array, rasterize

_SOLO_SIDE = 120
"""Longest side, px, at which a head is drawn alone to measure what hides it."""


@dataclass(frozen=True)
class TruthHead:
    """Ground truth of one visible head.

    Attributes:
        person_id: index in the pose.
        bbox_xywh: (4,) float32 px, the smallest rectangle of the head's visible pixels: face,
            skull, ears, the hair, hat and glasses that cover them; neither neck nor hair that
            hangs below the chin, nor a hat's brim. Edges lie on multiples of half a pixel.
        visible: fraction of the head inside the frame that nothing hides, 0 to 1.
        inside: fraction of the head inside the frame, 0 to 1.
        flame: (413,) float32, image frame, px.
        skin_tone: Monk scale, 1 to 10.
        hair_style: word of the caption vocabulary.
        glasses: likewise.
        hat: likewise.
    """

    person_id: int
    bbox_xywh: Float32Array
    visible: float
    inside: float
    flame: Float32Array
    skin_tone: int
    hair_style: str
    glasses: str
    hat: str


@dataclass(frozen=True)
class Extent:
    """Visible pixels of one head: their number and half-open bounds in buffer pixels."""

    count: int
    left: int
    top: int
    right: int
    bottom: int


def head_extents(head_ids: Int32Array, num_people: int) -> list[Extent]:
    """Count and bound the visible pixels of every person's head.

    Args:
        head_ids: (H, W) int32 index of the person whose head is seen, -1 elsewhere.
        num_people: number of persons.

    Returns:
        One extent a person; an unseen head has count 0.
    """
    rows = _extents(head_ids, num_people)
    return [Extent(*(int(value) for value in row)) for row in rows]


def solo_fraction(meshes: Sequence[Mesh], height: int, width: int) -> tuple[float, float]:
    """Return the area of a head's unoccluded silhouette.

    Args:
        meshes: the person's, positions in buffer pixels; only the head's parts count.
        height: of the buffer.
        width: of the buffer.

    Returns:
        Area in buffer pixels, and the fraction of it inside the buffer.
    """
    triangles = np.concatenate([_head_triangles(mesh) for mesh in meshes])
    if len(triangles) == 0:
        return 0.0, 0.0
    soup = triangles.reshape(-1, 3)
    faces = np.arange(len(soup), dtype=np.int32).reshape(-1, 3)
    return silhouette(soup, faces, height, width, _SOLO_SIDE)


def silhouette(
    points: Float32Array, faces: Int32Array, height: int, width: int, longest: int
) -> tuple[float, float]:
    """Return the area of a surface drawn alone.

    Args:
        points: (N, 3) float32 px, z away from the camera.
        faces: (F, 3) int32, at least one.
        height: of the image, px.
        width: of the image, px.
        longest: side, px, to which a larger surface is reduced for drawing.

    Returns:
        Area in px, and the fraction of it inside the image.
    """
    used = points[np.unique(faces)]
    low, high = used[:, :2].min(axis=0), used[:, :2].max(axis=0)
    scale = min(1.0, longest / max(float((high - low).max()), 1.0))
    moved = np.array(points, np.float32)
    moved[:, :2] = (moved[:, :2] - low) * np.float32(scale)
    rows, columns = (max(int(np.ceil(side * scale)), 1) for side in (high - low)[::-1])
    face_index, _, _ = rasterize(moved, faces, rows, columns)
    y, x = np.nonzero(face_index >= 0)
    if len(x) == 0:
        return 0.0, 0.0
    px, py = (x + 0.5) / scale + low[0], (y + 0.5) / scale + low[1]
    inside = (px >= 0) & (py >= 0) & (px < width) & (py < height)
    return len(x) / scale**2, float(inside.mean())


def _head_triangles(mesh: Mesh) -> Float32Array:
    """Return (F, 3, 3) corners of the head's faces that remain after their edges are cut."""
    own = mesh.faces[in_head_box(mesh.parts)]
    # Three gathers are several times faster than a reduction over an axis of three.
    covered = mesh.extras[:, 0] > -0.002
    own = own[covered[own[:, 0]] & covered[own[:, 1]] & covered[own[:, 2]]]
    return mesh.positions[own]


@njit(cache=True)
def _extents(head_ids, num_people):  # type: ignore[no-untyped-def]
    out = np.zeros((num_people, 5), np.int64)
    out[:, 1] = head_ids.shape[1]
    out[:, 2] = head_ids.shape[0]
    for row in range(head_ids.shape[0]):
        for column in range(head_ids.shape[1]):
            person = head_ids[row, column]
            if person >= 0:
                out[person, 0] += 1
                out[person, 1] = min(out[person, 1], column)
                out[person, 2] = min(out[person, 2], row)
                out[person, 3] = max(out[person, 3], column + 1)
                out[person, 4] = max(out[person, 4], row + 1)
    return out
