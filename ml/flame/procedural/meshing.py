"""Triangulation: strips between rows, prescribed edges, edge flips, smoothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.flame.procedural.surface import FloatArray

IntArray = NDArray[np.int64]


def strip(a: IntArray, b: IntArray, closed: bool) -> list[tuple[int, int, int]]:
    """Return triangles between two rows of one length; row b is to the right of row a."""
    n = len(a)
    out = []
    for i in range(n if closed else n - 1):
        j = (i + 1) % n
        out.append((a[i], b[i], a[j]))
        out.append((a[j], b[i], b[j]))
    return out


def turn(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Return twice the signed area of plane triangles (..., 2)."""
    u, v = b - a, c - a
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def recover_edges(flat: FloatArray, faces: IntArray, wanted: list[tuple[int, int]]) -> IntArray:
    """Flip edges of a plane triangulation until it has the prescribed ones.

    Args:
        flat: (N, 2) places of the vertices.
        faces: (F, 3) anticlockwise triangles.
        wanted: vertex pairs that do not cross each other.

    Returns:
        (F, 3) triangles.
    """
    faces = faces.copy()
    for start, end in wanted:
        for _ in range(20):
            has = (faces == start).any(axis=1) & (faces == end).any(axis=1)
            if has.any() or not _flip_crossing(flat, faces, int(start), int(end)):
                break
    return faces


def _flip_crossing(flat: FloatArray, faces: IntArray, start: int, end: int) -> bool:
    """Flip one edge that crosses the segment from start to end, in place; False if none can be."""
    near = np.flatnonzero(np.linalg.norm(flat[faces].mean(axis=1) - flat[start], axis=1) < 0.3)
    p, q = flat[start], flat[end]
    owner = {(int(faces[k][i]), int(faces[k][(i + 1) % 3])): int(k) for k in near for i in range(3)}
    for (a, b), left in sorted(owner.items()):
        if a > b or (b, a) not in owner or {a, b} & {start, end}:
            continue
        crosses = (
            turn(p, q, flat[a]) * turn(p, q, flat[b]) < 0
            and turn(flat[a], flat[b], p) * turn(flat[a], flat[b], q) < 0
        )
        if not crosses:
            continue
        right = owner[b, a]
        c = int(next(v for v in faces[left] if v not in (a, b)))
        d = int(next(v for v in faces[right] if v not in (a, b)))
        if turn(flat[c], flat[d], flat[b]) > 0 and turn(flat[d], flat[c], flat[a]) > 0:
            faces[left], faces[right] = (c, d, b), (d, c, a)
            return True
    return False


def improve(
    points: FloatArray, faces: IntArray, on_midline: frozenset[int], rounds: int = 12
) -> IntArray:
    """Flip edges until opposite angles sum to less than pi where the surface is not sharply bent.

    Args:
        points: (N, 3) mm.
        faces: (F, 3) oriented triangles.
        on_midline: vertices that no edge may join across a third one: it would lie in the mirror.
        rounds: largest number of sweeps over all edges.

    Returns:
        (F, 3) triangles over the same points with the same border.
    """
    tri = [list(map(int, f)) for f in faces]
    edge: dict[tuple[int, int], int] = {}
    for k, f in enumerate(tri):
        for i in range(3):
            edge[f[i], f[(i + 1) % 3]] = k

    def normal(a: int, b: int, c: int) -> FloatArray:
        n = np.cross(points[b] - points[a], points[c] - points[a])
        return n / (np.linalg.norm(n) + 1e-12)

    def angle(at: int, p: int, q: int) -> float:
        u, v = points[p] - points[at], points[q] - points[at]
        return float(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))

    pending = sorted(e for e in edge if e[0] < e[1])
    for _ in range(rounds):
        changed: set[tuple[int, int]] = set()
        for a, b in pending:
            if (a, b) not in edge or (b, a) not in edge:
                continue
            left, right = edge[a, b], edge[b, a]
            c = next(v for v in tri[left] if v not in (a, b))
            d = next(v for v in tri[right] if v not in (a, b))
            if (c, d) in edge or (d, c) in edge or (c in on_midline and d in on_midline):
                continue
            if angle(c, a, b) + angle(d, a, b) <= np.pi + 1e-6:
                continue
            mean = normal(a, b, c) + normal(b, a, d)
            if min(normal(c, d, b) @ mean, normal(d, c, a) @ mean) < 0.6:
                continue
            for old in ((a, b), (b, c), (c, a), (b, a), (a, d), (d, b)):
                del edge[old]
            tri[left], tri[right] = [c, d, b], [d, c, a]
            for k in (left, right):
                f = tri[k]
                for i in range(3):
                    edge[f[i], f[(i + 1) % 3]] = k
            changed |= {(min(p, q), max(p, q)) for p, q in ((a, d), (d, b), (b, c), (c, a))}
        if not changed:
            break
        pending = sorted(changed)
    return np.array(tri, dtype=np.int64)


def smooth(vertices: FloatArray, faces: IntArray, soft: IntArray, rounds: int = 3) -> FloatArray:
    """Even out creases between vertices of the skin without shrinking it (Taubin's filter)."""
    n = len(vertices)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    degree = np.bincount(edges[:, 0], minlength=n)
    free = np.zeros(n)
    free[soft] = 1.0
    out = vertices
    for factor in (0.55, -0.58) * rounds:
        mean = np.stack(
            [np.bincount(edges[:, 0], out[edges[:, 1], k], minlength=n) for k in range(3)], 1
        )
        out = out + (factor * free)[:, None] * (mean / np.maximum(degree, 1)[:, None] - out)
    return out
