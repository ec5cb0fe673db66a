"""Exact distances of points from a triangle mesh: a tree of boxes, searched by compiled code.

trimesh answers the same question through rtree, 25 times slower (benchmarks/scan_metrics.py), and
libigl's wheel carries parts under the GPL and a mesher whose licence forbids commercial use.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_LEAF = 4
_STACK = 128

Array = NDArray[np.float64]


class Surface:
    """A mesh with a search for the nearest point of its surface."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        """Build the tree.

        Args:
            vertices: (V, 3) finite numbers.
            faces: (F, 3) vertex indices; triangles without area are edges or points.

        Raises:
            ValueError: an array does not fit, or there is no triangle.
        """
        vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise ValueError(f"surface: vertices must be (V, 3) and finite, got {vertices.shape}")
        if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
            raise ValueError(f"surface: faces must be (F, 3), at least one, got {faces.shape}")
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise ValueError(
                f"surface: faces must index the {len(vertices)} vertices, "
                f"got {faces.min()}..{faces.max()}"
            )
        corners = vertices[faces]
        self._triangles, self._boxes, self._children = _build(corners)

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest points of the surface.

        Args:
            points: (N, 3) finite numbers, unit of the vertices.

        Returns:
            (N,) distances, at least 0; (N, 3) the points they belong to.

        Raises:
            ValueError: the points do not fit.
        """
        points = np.ascontiguousarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise ValueError(f"surface: points must be (N, 3) and finite, got {points.shape}")
        closest = np.empty_like(points)
        squared = np.empty(len(points))
        _search(points, self._triangles, self._boxes, self._children, squared, closest)
        return np.sqrt(squared), closest


def _build(corners: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Split triangles in halves along the longest side until leaves are small.

    Returns:
        triangles (F, 3, 3) in the order of the leaves; boxes (nodes, 2, 3) low and high corner;
        children (nodes, 2): two nodes, or for a leaf -1 - first and -1 - end of its triangles.
    """
    count = len(corners)
    order = np.arange(count)
    # Every leaf has two triangles at least, unless it is the only node.
    boxes, children = np.empty((count, 2, 3)), np.empty((count, 2), np.int64)
    low, high = corners.min(axis=1), corners.max(axis=1)
    nodes = _halve(corners.mean(axis=1), low, high, order, boxes, children)
    return np.ascontiguousarray(corners[order]), boxes[:nodes].copy(), children[:nodes].copy()


@njit(cache=True)
def _halve(centres, low, high, order, boxes, children):  # type: ignore[no-untyped-def]
    """Fill order, boxes and children; return the number of nodes."""
    keys = np.empty(len(order))
    waiting = np.empty((_STACK, 4), np.int64)  # first and end of the triangles, parent, side
    waiting[0] = 0, len(order), -1, 0
    top, nodes = 1, 0
    while top > 0:
        top -= 1
        first, end, parent, side = waiting[top]
        node = nodes
        nodes += 1
        if parent >= 0:
            children[parent, side] = node
        widest, axis = -1.0, 0
        for k in range(3):
            least, most, near, far = np.inf, -np.inf, np.inf, -np.inf
            for place in range(first, end):
                member = order[place]
                least, most = min(least, low[member, k]), max(most, high[member, k])
                near, far = min(near, centres[member, k]), max(far, centres[member, k])
            boxes[node, 0, k], boxes[node, 1, k] = least, most
            if far - near > widest:
                widest, axis = far - near, k
        if end - first <= _LEAF:
            children[node, 0], children[node, 1] = -1 - first, -1 - end
            continue
        half = first + (end - first) // 2
        for place in range(first, end):
            keys[place] = centres[order[place], axis]
        _partition(keys, order, first, end - 1, half)
        waiting[top] = half, end, node, 1
        waiting[top + 1] = first, half, node, 0
        top += 2
    return nodes


@njit(cache=True)
def _partition(keys, order, left, right, middle):  # type: ignore[no-untyped-def]
    """Move keys and their order so that none before `middle` exceeds one behind (quickselect)."""
    while left < right:
        pivot = keys[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while pivot < keys[j]:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                order[i], order[j] = order[j], order[i]
                i, j = i + 1, j - 1
        if middle <= j:
            right = j
        elif middle >= i:
            left = i
        else:
            return


@njit(cache=True)
def _search(points, triangles, boxes, children, squared, closest):  # type: ignore[no-untyped-def]
    stack = np.empty(_STACK, np.int64)
    found = np.empty(3)
    for n in range(len(points)):
        p = points[n]
        best = np.inf
        stack[0] = 0
        top = 1
        while top > 0:
            top -= 1
            node = stack[top]
            if _box_distance(p, boxes[node]) >= best:
                continue
            first, second = children[node, 0], children[node, 1]
            if first < 0:
                for t in range(-1 - first, -1 - second):
                    _triangle_point(p, triangles[t], found)
                    distance = 0.0
                    for k in range(3):
                        distance += (p[k] - found[k]) ** 2
                    if distance < best:
                        best = distance
                        closest[n, 0], closest[n, 1], closest[n, 2] = found[0], found[1], found[2]
                continue
            # The nearer child is searched first: it usually rules out the other.
            if _box_distance(p, boxes[first]) < _box_distance(p, boxes[second]):
                first, second = second, first
            stack[top] = first
            stack[top + 1] = second
            top += 2
        squared[n] = best


@njit(cache=True)
def _box_distance(p, box):  # type: ignore[no-untyped-def]
    """Return the squared distance of a point from an axis-parallel box; 0 inside."""
    total = 0.0
    for k in range(3):
        outside = max(box[0, k] - p[k], p[k] - box[1, k], 0.0)
        total += outside * outside
    return total


@njit(cache=True)
def _triangle_point(p, triangle, found):  # type: ignore[no-untyped-def]
    """Return the point of a triangle nearest to p: in the face, or on the best of its edges.

    A point is inside according to barycentric coordinates of the foot of the perpendicular. A
    triangle without area has none, and then an edge holds the nearest point.
    """
    a, b, c = triangle[0], triangle[1], triangle[2]
    ab0, ab1, ab2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    ac0, ac1, ac2 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    ap0, ap1, ap2 = p[0] - a[0], p[1] - a[1], p[2] - a[2]
    bb = ab0 * ab0 + ab1 * ab1 + ab2 * ab2
    bc = ab0 * ac0 + ab1 * ac1 + ab2 * ac2
    cc = ac0 * ac0 + ac1 * ac1 + ac2 * ac2
    pb = ap0 * ab0 + ap1 * ab1 + ap2 * ab2
    pc = ap0 * ac0 + ap1 * ac1 + ap2 * ac2
    area = bb * cc - bc * bc
    if area > 1e-14 * bb * cc:
        u = (cc * pb - bc * pc) / area
        v = (bb * pc - bc * pb) / area
        if u >= 0.0 and v >= 0.0 and u + v <= 1.0:
            found[0] = a[0] + u * ab0 + v * ac0
            found[1] = a[1] + u * ab1 + v * ac1
            found[2] = a[2] + u * ab2 + v * ac2
            return
    best = np.inf
    for edge in range(3):
        start, end = triangle[edge], triangle[(edge + 1) % 3]
        length, along = 0.0, 0.0
        for k in range(3):
            side = end[k] - start[k]
            length += side * side
            along += side * (p[k] - start[k])
        fraction = 0.0
        if length > 0.0:
            fraction = min(max(along / length, 0.0), 1.0)
        distance = 0.0
        for k in range(3):
            distance += (start[k] + fraction * (end[k] - start[k]) - p[k]) ** 2
        if distance < best:
            best = distance
            for k in range(3):
                found[k] = start[k] + fraction * (end[k] - start[k])
