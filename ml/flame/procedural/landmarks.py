"""The 68 landmarks of the procedural head as places on its triangles."""

from __future__ import annotations

import numpy as np

from ml.flame.procedural import parts
from ml.flame.procedural.surface import FloatArray
from ml.flame.procedural.topology import IntArray, Mesh

_CONTOUR = [
    (-71.0, 12.0, -25.0), (-70.0, -8.0, -25.0), (-67.0, -28.0, -22.0), (-63.0, -47.0, -18.0),
    (-56.0, -64.0, -10.0), (-47.0, -79.0, 2.0), (-34.0, -91.0, 16.0), (-18.0, -99.0, 32.0),
    (0.0, -101.5, 40.0),
]  # fmt: skip
_BROWS = [(-51.0, 33.5), (-43.0, 38.5), (-33.5, 40.3), (-23.0, 38.8), (-13.5, 36.0)]
_NOSE_MIDDLE = [(0.0, 24.0), (0.0, 11.0), (0.0, -2.5), (0.0, -15.0)]
_NOSE_BASE = [(-14.0, -24.0), (-7.0, -27.0), (0.0, -28.0)]


def landmarks(mesh: Mesh) -> tuple[IntArray, FloatArray]:
    """Return the 68 landmarks in iBUG order, mirror-symmetric.

    Returns:
        (68,) face of each landmark and (68, 3) barycentric weights.
    """
    v, faces = mesh.vertices_mm, mesh.faces
    hidden = np.zeros(len(v), dtype=bool)
    for name, index in mesh.names.items():
        if name.startswith(("eye_", "eyeball", "mouth_", "ear_")):
            hidden[index] = True
    usable = np.flatnonzero(~hidden[faces].any(axis=1))

    def front(xy: tuple[float, float]) -> tuple[int, FloatArray]:
        return _first_hit(v, faces, usable, np.array(xy))

    right: dict[int, tuple[int, FloatArray]] = {}
    for i, target in enumerate(_CONTOUR[:-1]):
        right[i] = _closest(v, faces, usable, np.array(target))
    middle = np.flatnonzero((v[:, 0] == 0.0) & ~hidden)
    chin = middle[np.argmin(np.linalg.norm(v[middle] - np.array(_CONTOUR[-1]), axis=1))]
    right[8] = _corner(mesh, int(chin))
    for i, xy in enumerate(_BROWS):
        right[17 + i] = front(xy)
    for i, xy in enumerate(_NOSE_MIDDLE):
        right[27 + i] = front(xy)
    for i, xy in enumerate(_NOSE_BASE):
        right[31 + i] = front(xy)
    rim = mesh.rows["eye_rim"]
    for i, column in enumerate((0, 4, 8, 12, 16, 20)):
        right[36 + i] = _corner(mesh, int(mesh.mirror[rim[column]]))
    n, line = parts.NUM_LIP, mesh.rows["mouth_line"]
    top, low = mesh.rows["lip_upper_edge"], mesh.rows["lip_lower_edge"]
    lips = {
        48: line[n], 49: top[5], 50: top[2], 51: top[0], 57: low[0], 58: low[3], 59: low[6],
        60: line[n - 1], 61: line[4], 62: line[0], 66: line[2 * n], 67: line[2 * n - 4],
    }  # fmt: skip
    for i, vertex in lips.items():
        right[i] = _corner(mesh, int(mesh.mirror[vertex]))
    out = dict(right)
    index_of = {tuple(sorted(map(int, f))): k for k, f in enumerate(faces)}
    for i, j in enumerate(LANDMARK_MIRROR):
        if j not in out:
            face, weight = right[i]
            vertices = mesh.mirror[faces[face]]
            twin = index_of[tuple(sorted(map(int, vertices)))]
            order = [list(vertices).index(k) for k in faces[twin]]
            out[j] = (twin, weight[order])
    return np.array([out[i][0] for i in range(68)]), np.array([out[i][1] for i in range(68)])


LANDMARK_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42,
    47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62,
    61, 60, 67, 66, 65,
)  # fmt: skip
"""Landmark on the other side of the face."""


def _corner(mesh: Mesh, vertex: int) -> tuple[int, FloatArray]:
    face = int(np.flatnonzero((mesh.faces == vertex).any(axis=1))[0])
    return face, (mesh.faces[face] == vertex).astype(float)


def _barycentric(p: FloatArray, a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Return weights (N, 3) of points p (N, k) projected into triangles (N, k)."""
    e, f, g = b - a, c - a, p - a
    ee, ef, ff = (e * e).sum(-1), (e * f).sum(-1), (f * f).sum(-1)
    ge, gf = (g * e).sum(-1), (g * f).sum(-1)
    det = np.maximum(ee * ff - ef * ef, 1e-12)
    wb, wc = (ff * ge - ef * gf) / det, (ee * gf - ef * ge) / det
    return np.stack([1.0 - wb - wc, wb, wc], axis=-1)


def _first_hit(
    v: FloatArray, faces: IntArray, usable: IntArray, xy: FloatArray
) -> tuple[int, FloatArray]:
    a, b, c = (v[faces[usable, k]] for k in range(3))
    w = _barycentric(xy[None].repeat(len(a), 0), a[:, :2], b[:, :2], c[:, :2])
    inside = (w >= -1e-9).all(axis=1)
    z = (w * np.stack([a[:, 2], b[:, 2], c[:, 2]], 1)).sum(1)
    best = int(np.argmax(np.where(inside, z, -np.inf)))
    weight = np.clip(w[best], 0.0, 1.0)
    return int(usable[best]), weight / weight.sum()


def _closest(
    v: FloatArray, faces: IntArray, usable: IntArray, target: FloatArray
) -> tuple[int, FloatArray]:
    a, b, c = (v[faces[usable, k]] for k in range(3))
    w = np.clip(_barycentric(target[None].repeat(len(a), 0), a, b, c), 0.0, None)
    w /= w.sum(axis=1, keepdims=True)
    at = w[:, :1] * a + w[:, 1:2] * b + w[:, 2:] * c
    best = int(np.argmin(np.linalg.norm(at - target, axis=1)))
    return int(usable[best]), w[best]
