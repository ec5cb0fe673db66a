"""Exact ground truth of a rendered head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ml.generation import parts
from ml.generation.meshes import Mesh
from ml.imaging.rasterizer import Float32Array, Int32Array, rasterize

_SOLO_SIDE = 160
"""Longest side, px, at which a head is drawn alone to measure what hides it."""


@dataclass(frozen=True)
class TruthHead:
    """What is known of one visible head.

    Attributes:
        person_id: index in the pose.
        bbox_xywh: (4,) float32 px, the smallest rectangle of the head's visible pixels: face,
            skull, ears, the hair, hat and glasses that cover them; neither neck nor hair that
            hangs below the chin, nor a hat's brim. Edges lie on multiples of half a pixel.
        visible: share of the head inside the frame that nothing hides, 0 to 1.
        inside: share of the head inside the frame, 0 to 1.
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


def solo_share(mesh: Mesh, height: int, width: int) -> tuple[float, float]:
    """Silhouette of a head that nothing hides.

    Args:
        mesh: the head's own parts, positions in buffer pixels.
        height: of the buffer.
        width: of the buffer.

    Returns:
        Area in buffer pixels, and the share of it that lies inside the buffer.
    """
    own = mesh.faces[np.isin(mesh.parts, parts.HEAD_PARTS)]
    own = own[mesh.extras[own][:, :, 0].min(axis=1) > -0.002]
    if len(own) == 0:
        return 0.0, 0.0
    corners = mesh.positions[own.reshape(-1), :2]
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = min(1.0, _SOLO_SIDE / max(float((high - low).max()), 1.0))
    moved = mesh.positions.copy()
    moved[:, :2] = (moved[:, :2] - low) * scale
    rows, columns = (max(int(np.ceil(v * scale)), 1) for v in (high - low)[::-1])
    face_index, _, _ = rasterize(moved, own, rows, columns)
    y, x = np.nonzero(face_index >= 0)
    if len(x) == 0:
        return 0.0, 0.0
    px, py = (x + 0.5) / scale + low[0], (y + 0.5) / scale + low[1]
    inside = (px >= 0) & (py >= 0) & (px < width) & (py < height)
    return len(x) / scale**2, float(inside.mean())


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
