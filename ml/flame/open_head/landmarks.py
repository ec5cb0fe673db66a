"""The 68 landmarks as places on triangles, found on the mean head as it is seen from the front.

Lids and lips are found where they are: at the border of what shows of the eyeball, at the border
of the painted lips, and on the line where upper and lower lip meet. Brows, nose and the jaw's
contour are the surface points nearest to given places.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml.flame.open_head.source import FloatArray, IntArray
from ml.flame.open_head.topology import HeadMesh
from ml.imaging.rasterizer import rasterize

LANDMARK_MIRROR: Final = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42,
    47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62,
    61, 60, 67, 66, 65,
)  # fmt: skip
"""Landmark on the other side of the face."""
_PIXELS_PER_MM: Final = 8
_SIDE_PX: Final = 1024
_CONTOUR: Final = (
    (67.0, 12.0, -24.0), (67.0, -8.0, -24.0), (65.0, -28.0, -21.0), (61.0, -46.0, -15.0),
    (54.0, -62.0, -4.0), (43.0, -75.0, 9.0), (30.0, -84.0, 24.0), (15.0, -89.0, 36.0),
)  # fmt: skip
"""Left side of the jaw from the ear (landmark 17) to the chin (landmark 10), mm."""
_BROWS: Final = ((50.0, 34.5), (42.5, 39.5), (33.0, 41.0), (23.0, 39.0), (14.0, 35.5))
"""Left brow from its outer end (landmark 27) to its inner one (landmark 23), frontal mm."""
_BRIDGE: Final = 24.0
"""Height of the root of the nose (landmark 28), mm."""

Place = tuple[int, FloatArray]


def landmarks(
    mesh: HeadMesh, template: FloatArray, lips: FloatArray, jaw: FloatArray, hidden: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Return the 68 landmarks in iBUG order, mirror-symmetric.

    Args:
        mesh: the head.
        template: (5023, 3) m.
        lips: (5023,) painted lips.
        jaw: (5023,) skinning weight of the jaw.
        hidden: (5023,) above 0.5 inside of mouth and sockets.

    Returns:
        (68,) face of each landmark and (68, 3) barycentric weights.
    """
    view = _FrontView(mesh, template * 1000.0)
    left: dict[int, Place] = {}
    shown = np.isin(mesh.faces, mesh.parts["skin"]) & (hidden[mesh.faces] < 0.5)
    usable = np.asarray(shown.all(axis=1))
    for i, target in enumerate(_CONTOUR):
        left[16 - i] = _closest(view.points, mesh.faces, usable, np.array(target))
    for i, xy in enumerate(_BROWS):
        left[26 - i] = view.at(*xy)
    left |= _nose(view, mesh, hidden)
    left |= _lids(view, mesh)
    left |= _mouth(view, mesh, lips, jaw)
    out = dict(left)
    index_of = {tuple(sorted(map(int, f))): k for k, f in enumerate(mesh.faces)}
    for i, j in enumerate(LANDMARK_MIRROR):
        if i in left and j not in out:
            face, weight = left[i]
            vertices = mesh.mirror[mesh.faces[face]]
            twin = index_of[tuple(sorted(map(int, vertices)))]
            order = [list(vertices).index(k) for k in mesh.faces[twin]]
            out[j] = (twin, weight[order])
    return np.array([out[i][0] for i in range(68)]), np.array([out[i][1] for i in range(68)])


class _FrontView:
    """The head seen from the front, parallel projection, a fraction of a millimetre a pixel."""

    def __init__(self, mesh: HeadMesh, points_mm: FloatArray) -> None:
        self.points, self._faces = points_mm, mesh.faces
        # the eyes' middle is in the middle of the image, which has y down and z away
        pixels = points_mm * [_PIXELS_PER_MM, -_PIXELS_PER_MM, -_PIXELS_PER_MM]
        pixels[:, 1] += _SIDE_PX / 2
        seen = rasterize(pixels.astype(np.float32), mesh.faces.astype(np.int32), _SIDE_PX, _SIDE_PX)
        self.face, self.weights = seen[0], seen[1]

    def at(self, x_mm: float, y_mm: float) -> Place:
        """Return what is seen at frontal coordinates, left side."""
        return self.at_pixel(int(x_mm * _PIXELS_PER_MM), int(_SIDE_PX / 2 - y_mm * _PIXELS_PER_MM))

    def at_pixel(self, column: int, row: int) -> Place:
        """Return what is seen at a pixel."""
        face = int(self.face[row, column])
        if face < 0:
            raise RuntimeError(f"open head: nothing is seen at pixel {column}, {row}")
        weight = np.clip(self.weights[row, column].astype(np.float64), 0.0, 1.0)
        return face, weight / weight.sum()

    def values(self, per_vertex: FloatArray) -> FloatArray:
        """Return a per-vertex value at every pixel, 0 where nothing is seen."""
        corners = per_vertex[self._faces[np.maximum(self.face, 0)]]
        return np.where(self.face < 0, 0.0, (corners * self.weights).sum(axis=-1))


def _lids(view: _FrontView, mesh: HeadMesh) -> dict[int, Place]:
    """Return landmarks 43 to 48: skin at the border of what is seen of the left eyeball."""
    is_ball = np.zeros(len(view.points))
    is_ball[mesh.parts["left_eyeball"]] = 1.0
    shown = view.values(is_ball) > 0.5
    columns = np.flatnonzero(shown.any(axis=0))
    inner, outer = int(columns[0]), int(columns[-1])
    middle = {c: np.flatnonzero(shown[:, c]) for c in (inner, outer)}
    out = {
        42: view.at_pixel(inner - 1, int(np.median(middle[inner]))),
        45: view.at_pixel(outer + 1, int(np.median(middle[outer]))),
    }
    for number, fraction in ((43, 1 / 3), (44, 2 / 3), (47, 1 / 3), (46, 2 / 3)):
        column = round(inner + fraction * (outer - inner))
        rows = np.flatnonzero(shown[:, column])
        row = int(rows[0]) - 1 if number in (43, 44) else int(rows[-1]) + 1
        out[number] = view.at_pixel(column, row)
    return out


def _mouth(view: _FrontView, mesh: HeadMesh, lips: FloatArray, jaw: FloatArray) -> dict[int, Place]:
    """Return landmarks 49 to 68 of the left half and the middle."""
    red = view.values(lips) > 0.5
    lower = view.values(jaw) > 0.5
    columns = np.flatnonzero(red.any(axis=0))
    width = int(columns[-1])

    def border(fraction: float) -> tuple[int, int, int, int, int]:
        column = min(round(fraction * width), width - 1)
        rows = np.flatnonzero(red[:, column])
        meeting = rows[np.flatnonzero(np.diff(lower[rows, column].astype(int)) == 1)]
        line = int(meeting[0]) if len(meeting) else int(np.median(rows))
        return column, int(rows[0]), line, line + 1, int(rows[-1])

    corner = int(np.median(np.flatnonzero(red[:, width])))
    out = {54: view.at_pixel(width, corner), 64: view.at_pixel(width - 12, border(0.95)[2])}
    for upper, below, fraction in ((53, 55, 0.66), (52, 56, 0.28)):
        column, top, _, _, bottom = border(fraction)
        out[upper], out[below] = view.at_pixel(column, top), view.at_pixel(column, bottom)
    column, _, line, under, _ = border(0.5)
    out[63], out[65] = view.at_pixel(column, line), view.at_pixel(column, under)
    _, top, line, under, bottom = border(0.0)
    for number, row in ((51, top), (62, line), (66, under), (57, bottom)):
        out[number] = _on_midline(view, mesh, row)
    return out


def _nose(view: _FrontView, mesh: HeadMesh, hidden: FloatArray) -> dict[int, Place]:
    """Return landmarks 28 to 36 of the left half and the middle, and the chin (9)."""
    middle = np.flatnonzero((view.points[:, 0] == 0.0) & (hidden < 0.5))
    middle = np.intersect1d(middle, mesh.parts["skin"])
    front = view.points[middle]
    tip = front[np.argmax(front[:, 2])]
    out = {}
    for number, fraction in ((27, 0.0), (28, 1 / 3), (29, 2 / 3), (30, 1.0)):
        height = _BRIDGE + fraction * (tip[1] - _BRIDGE)
        out[number] = _on_midline(view, mesh, _row(height))
    # the base of the nose: the hollow farthest behind the line from its tip to the upper lip
    below = front[(front[:, 1] < tip[1]) & (front[:, 1] > tip[1] - 18.0) & (front[:, 2] > 30.0)]
    along = below[np.argmin(below[:, 1]), 1:] - tip[1:]
    depth = (
        along[0] * (below[:, 2] - tip[2]) - along[1] * (below[:, 1] - tip[1])
    ) / np.linalg.norm(along)
    base = below[np.argmax(depth)]
    out[33] = _on_midline(view, mesh, _row(float(base[1])))
    out[34] = view.at(7.0, float(base[1]) + 1.0)
    out[35] = view.at(13.5, float(base[1]) + 3.0)
    low = front[(front[:, 1] < -75.0) & (front[:, 1] > -125.0) & (front[:, 2] > 10.0)]
    chin = low[np.argmax(low[:, 2] - 2.0 * low[:, 1])]
    out[8] = _on_midline(view, mesh, _row(float(chin[1])))
    return out


def _row(y_mm: float) -> int:
    return int(_SIDE_PX / 2 - y_mm * _PIXELS_PER_MM)


def _on_midline(view: _FrontView, mesh: HeadMesh, row: int) -> Place:
    """Return the front-most place at a height on an edge of the midline: exactly symmetric."""
    y = (_SIDE_PX / 2 - row - 0.5) / _PIXELS_PER_MM
    best: tuple[float, int, FloatArray] | None = None
    for k in range(3):
        a, b = mesh.faces[:, k], mesh.faces[:, (k + 1) % 3]
        pa, pb = view.points[a], view.points[b]
        on = (pa[:, 0] == 0.0) & (pb[:, 0] == 0.0) & ((pa[:, 1] - y) * (pb[:, 1] - y) <= 0.0)
        on &= pa[:, 1] != pb[:, 1]
        for face in np.flatnonzero(on):
            t = (y - pa[face, 1]) / (pb[face, 1] - pa[face, 1])
            z = float(pa[face, 2] + t * (pb[face, 2] - pa[face, 2]))
            if best is None or z > best[0] + 1e-9:
                weight = np.zeros(3)
                weight[k], weight[(k + 1) % 3] = 1.0 - t, t
                best = (z, int(face), weight)
    if best is None:
        raise RuntimeError(f"open head: no midline at y = {y:.1f} mm")
    return best[1], best[2]


def _closest(
    points: FloatArray, faces: IntArray, usable: NDArray[np.bool_], target: FloatArray
) -> Place:
    """Return the place on usable triangles nearest to a target (weights clipped into them)."""
    index = np.flatnonzero(usable)
    a, b, c = (points[faces[index, k]] for k in range(3))
    e, f, g = b - a, c - a, target - a
    ee, ef, ff = (e * e).sum(-1), (e * f).sum(-1), (f * f).sum(-1)
    ge, gf = (g * e).sum(-1), (g * f).sum(-1)
    det = np.maximum(ee * ff - ef * ef, 1e-12)
    wb, wc = (ff * ge - ef * gf) / det, (ee * gf - ef * ge) / det
    weights = np.clip(np.stack([1.0 - wb - wc, wb, wc], axis=-1), 0.0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    at = weights[:, :1] * a + weights[:, 1:2] * b + weights[:, 2:] * c
    best = int(np.argmin(np.linalg.norm(at - target, axis=1)))
    return int(index[best]), weights[best]
