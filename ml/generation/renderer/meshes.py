"""Triangle meshes with the per-vertex data that the shading kernel reads, and swept surfaces.

Metres, image axes (x right, y down, z away from the camera) unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from ml.imaging.rasterizer import Float32Array, Int32Array, vertex_normals

NUM_EXTRAS = 4


@dataclass(frozen=True)
class Mesh:
    """A surface and its attributes for shading.

    Attributes:
        positions: (V, 3) float32.
        normals: (V, 3) float32 unit vectors pointing out of the surface.
        coords: (V, 3) float32 coordinates that stay with the surface, metres; patterns and
            noise are functions of them.
        tangents: (V, 3) float32 direction of the fibres (hair, cloth); zero where meaningless.
        extras: (V, 4) float32, meaning set by the material (see `shading.py`).
        faces: (F, 3) int32.
        materials: (F,) int32 row of the material table.
        parts: (F,) int32 one of `parts.py`'s codes, by which ground truth distinguishes head and
            body.
    """

    positions: Float32Array
    normals: Float32Array
    coords: Float32Array
    tangents: Float32Array
    extras: Float32Array
    faces: Int32Array
    materials: Int32Array
    parts: Int32Array

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Mesh:
        """Return the same surface after `rotation @ x + shift`."""
        turn = np.asarray(rotation, np.float32).T
        return replace(
            self,
            positions=self.positions @ turn + np.asarray(shift, np.float32),
            normals=self.normals @ turn,
            tangents=self.tangents @ turn,
        )


def make_mesh(
    positions: np.ndarray,
    faces: np.ndarray,
    material: int,
    part: int,
    *,
    coords: np.ndarray | None = None,
    tangents: np.ndarray | None = None,
    extras: np.ndarray | None = None,
    outward_from: np.ndarray | None = None,
    normals: np.ndarray | None = None,
) -> Mesh:
    """Build a mesh of one material; missing data become zeros, normals follow from the faces.

    Args:
        positions: (V, 3) metres.
        faces: (F, 3) vertex indices.
        material: row of the material table.
        part: code of `parts.py`.
        coords: (V, 3) surface coordinates, default the positions.
        tangents: (V, 3) fibre directions.
        extras: (V, 4) material data.
        outward_from: (3,) or (V, 3) inner points; normals are flipped to point away from them.
        normals: (V, 3) normals, instead of those of the faces.

    Returns:
        The mesh.
    """
    points = np.ascontiguousarray(positions, np.float32)
    triangles = np.ascontiguousarray(faces, np.int32)
    if normals is None:
        normals = vertex_normals(points, triangles)
        if outward_from is not None:
            away = np.einsum("ij,ij->i", normals, points - outward_from)
            normals = np.where(away[:, None] < 0.0, -normals, normals)
    count = len(points)
    return Mesh(
        positions=points,
        normals=np.asarray(normals, np.float32),
        coords=points if coords is None else np.asarray(coords, np.float32),
        tangents=_or_zeros(tangents, (count, 3)),
        extras=_or_zeros(extras, (count, NUM_EXTRAS)),
        faces=triangles,
        materials=np.full(len(triangles), material, np.int32),
        parts=np.full(len(triangles), part, np.int32),
    )


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Return one mesh of several; vertex order is the order given."""
    if not meshes:
        return empty_mesh()
    offsets = np.cumsum([0] + [len(mesh.positions) for mesh in meshes[:-1]])
    return Mesh(
        positions=np.concatenate([m.positions for m in meshes]),
        normals=np.concatenate([m.normals for m in meshes]),
        coords=np.concatenate([m.coords for m in meshes]),
        tangents=np.concatenate([m.tangents for m in meshes]),
        extras=np.concatenate([m.extras for m in meshes]),
        faces=np.concatenate([m.faces + np.int32(o) for m, o in zip(meshes, offsets, strict=True)]),
        materials=np.concatenate([m.materials for m in meshes]),
        parts=np.concatenate([m.parts for m in meshes]),
    )


def cut(mesh: Mesh, inside: np.ndarray) -> Mesh:
    """Return the part of a mesh where a value is positive; faces across the border are divided.

    Args:
        mesh: the surface.
        inside: (V,) a value of each vertex, linear in between.

    Returns:
        The part, without vertices that no face uses.
    """
    count = (inside[mesh.faces] > 0.0).sum(axis=1)
    across = np.flatnonzero((count == 1) | (count == 2))
    # Turn each divided face until the corner that is alone on its side comes first.
    corners = mesh.faces[across]
    alone = (inside[corners] > 0.0) == (count[across] == 1)[:, None]
    order = (alone.argmax(axis=1)[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(corners, order, axis=1).T
    edges = np.concatenate([np.stack([a, b], 1), np.stack([a, c], 1)])
    codes, first, index = np.unique(
        np.sort(edges, axis=1) @ [len(inside), 1], return_index=True, return_inverse=True
    )
    ends = np.sort(edges[first], axis=1)
    share = inside[ends[:, 0]] / (inside[ends[:, 0]] - inside[ends[:, 1]])
    ab, ac = (len(inside) + index.ravel()).reshape(2, -1)
    one = count[across] == 1
    faces = np.concatenate(
        [mesh.faces[count == 3], np.stack([a, ab, ac], 1)[one], np.stack([ab, b, c], 1)[~one],
         np.stack([ab, c, ac], 1)[~one]]
    )  # fmt: skip
    owner = np.concatenate([np.flatnonzero(count == 3), across[one], across[~one], across[~one]])
    used = np.zeros(len(inside) + len(codes), bool)
    used[faces] = True
    number = np.cumsum(used) - 1
    old = np.flatnonzero(used[: len(inside)])
    near, far, part = ends[:, 0], ends[:, 1], share.astype(np.float32)[:, None]

    def carried(values: Float32Array) -> Float32Array:
        between = values[near] + part * (values[far] - values[near])
        return np.concatenate([values[old], between])

    return Mesh(
        positions=carried(mesh.positions),
        normals=carried(mesh.normals),
        coords=carried(mesh.coords),
        tangents=carried(mesh.tangents),
        extras=carried(mesh.extras),
        faces=number[faces].astype(np.int32),
        materials=mesh.materials[owner],
        parts=mesh.parts[owner],
    )


def empty_mesh() -> Mesh:
    """Return a mesh without faces."""
    none3 = np.zeros((0, 3), np.float32)
    none = np.zeros(0, np.int32)
    return Mesh(
        none3,
        none3,
        none3,
        none3,
        np.zeros((0, NUM_EXTRAS), np.float32),
        np.zeros((0, 3), np.int32),
        none,
        none,
    )


def grid_faces(rows: int, columns: int, closed: bool) -> Int32Array:
    """Return triangles of a grid of vertices in row-major order.

    Args:
        rows: vertices along the sweep.
        columns: vertices of one ring.
        closed: whether the last column joins the first.

    Returns:
        (F, 3) int32.
    """
    row = np.arange(rows - 1)[:, None] * columns
    column = np.arange(columns if closed else columns - 1)[None]
    following = (column + 1) % columns
    a, b = row + column, row + following
    c, d = a + columns, b + columns
    quads = np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], axis=2)
    return quads.reshape(-1, 3).astype(np.int32)


def sweep(
    path: np.ndarray,
    front: np.ndarray,
    half_width: np.ndarray,
    half_depth: np.ndarray,
    segments: int,
    material: int,
    part: int,
    *,
    capped: bool = False,
) -> Mesh:
    """Return a tube of elliptical cross-section along a path.

    Args:
        path: (N, 3) centre line.
        front: (3,) direction of angle 0.
        half_width: (N,) half axis across `front`.
        half_depth: (N,) half axis along `front`.
        segments: vertices of a ring.
        material: row of the material table.
        part: code of `parts.py`.
        capped: whether the ends are closed by a point.

    Returns:
        A mesh with coords (around, along, 0) in metres.
    """
    line = np.ascontiguousarray(path, np.float64)
    side, forward = _ring_frames(line, np.asarray(front, np.float64))
    width = np.ascontiguousarray(half_width, np.float64)
    depth = np.ascontiguousarray(half_depth, np.float64)
    positions, coords, tangents, faces = _sweep(line, side, forward, width, depth, segments, capped)
    normals = vertex_normals(positions, faces)
    _turn_outwards(positions, normals, line, segments)
    return make_mesh(
        positions, faces, material, part, coords=coords, tangents=tangents, normals=normals
    )


def ellipsoid(
    centre: np.ndarray,
    axes: np.ndarray,
    rows: int,
    columns: int,
    material: int,
    part: int,
) -> Mesh:
    """Return an ellipsoid, its coords on the unit sphere.

    Args:
        centre: (3,) metres.
        axes: (3, 3) rows are the half axes as vectors, the last one the pole.
        rows: parallels.
        columns: meridians.
        material: row of the material table.
        part: code of `parts.py`.

    Returns:
        The mesh.
    """
    theta = np.linspace(0.0, np.pi, rows)
    phi = np.linspace(0.0, 2.0 * np.pi, columns, endpoint=False)
    unit = np.stack(
        [
            np.sin(theta)[:, None] * np.cos(phi)[None],
            np.sin(theta)[:, None] * np.sin(phi)[None],
            np.broadcast_to(np.cos(theta)[:, None], (rows, columns)),
        ],
        -1,
    ).reshape(-1, 3)
    normals = unit @ np.linalg.pinv(axes).T
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    return make_mesh(
        centre + unit @ axes,
        grid_faces(rows, columns, closed=True),
        material,
        part,
        coords=unit,
        normals=normals,
    )


def smooth_path(
    points: np.ndarray, samples: int, rounding: float | Sequence[float] = 0.35
) -> np.ndarray:
    """Resample a polyline with its corners rounded.

    Args:
        points: (N, 3) corners.
        samples: points of the result.
        rounding: fraction of the neighbouring segments that a corner's curve may use, 0 to 0.5;
            one number for all corners, or one each.

    Returns:
        (samples, 3) points at equal arc length; the ends are the given ends.
    """
    pieces = [points[:1]]
    parameter = np.linspace(0.0, 1.0, 7)[:, None]
    corners = np.broadcast_to(np.asarray(rounding), (max(len(points) - 2, 0),))
    for fraction, before, corner, after in zip(
        corners, points[:-2], points[1:-1], points[2:], strict=True
    ):
        start = corner + fraction * (before - corner)
        end = corner + fraction * (after - corner)
        pieces.append(
            (1 - parameter) ** 2 * start
            + 2 * parameter * (1 - parameter) * corner
            + parameter**2 * end
        )
    pieces.append(points[-1:])
    dense = np.concatenate(pieces)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    wanted = np.linspace(0.0, length[-1], samples)
    return np.stack([np.interp(wanted, length, dense[:, k]) for k in range(3)], -1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross product of (..., 3) arrays; many times faster than numpy's on small ones."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _or_zeros(values: np.ndarray | None, shape: tuple[int, int]) -> Float32Array:
    return np.zeros(shape, np.float32) if values is None else np.asarray(values, np.float32)


@njit(cache=True)
def _direction(path, i):  # type: ignore[no-untyped-def]
    low, high = max(i - 1, 0), min(i + 1, len(path) - 1)
    step = path[high] - path[low]
    return step / (np.sqrt((step * step).sum()) + 1e-9)


@njit(cache=True)
def _ring_frames(path, front):  # type: ignore[no-untyped-def]
    """Return side and front directions of the rings along a path, without twist."""
    side, forward = np.empty_like(path), np.empty_like(path)
    for i in range(len(path)):
        along = _direction(path, i)
        flat = front - along * (along * front).sum()
        length = np.sqrt((flat * flat).sum())
        if length < 0.15:
            # A limb that points along `front` has no projection; any perpendicular does.
            flat = np.array([along[2] * 1e-3 - along[1], along[0], -1e-3 * along[0]])
            if abs(along[2]) > 0.9:
                flat = np.array([along[2], 0.0, -along[0]])
            length = np.sqrt((flat * flat).sum()) + 1e-9
        flat = flat / length
        forward[i] = flat
        side[i, 0] = along[1] * flat[2] - along[2] * flat[1]
        side[i, 1] = along[2] * flat[0] - along[0] * flat[2]
        side[i, 2] = along[0] * flat[1] - along[1] * flat[0]
    return side, forward


@njit(cache=True)
def _sweep(path, side, forward, width, depth, segments, capped):  # type: ignore[no-untyped-def]
    rows = len(path)
    caps = 2 if capped else 0
    count = rows * segments + caps
    positions = np.empty((count, 3), np.float32)
    coords = np.zeros((count, 3), np.float32)
    tangents = np.empty((count, 3), np.float32)
    faces = np.empty((2 * (rows - 1) * segments + caps * segments, 3), np.int32)
    v = 0.0
    for i in range(rows):
        if i > 0:
            v += np.sqrt(((path[i] - path[i - 1]) ** 2).sum())
        along = _direction(path, i)
        radius = 0.5 * (width[i] + depth[i])
        for j in range(segments):
            angle = 2.0 * np.pi * j / segments
            a, b = np.sin(angle) * width[i], np.cos(angle) * depth[i]
            k = i * segments + j
            for c in range(3):
                positions[k, c] = path[i, c] + a * side[i, c] + b * forward[i, c]
                tangents[k, c] = along[c]
            # The seam of the around-coordinate is at the back.
            coords[k, 0] = radius * (angle - 2.0 * np.pi if angle > np.pi else angle)
            coords[k, 1] = v
    f = 0
    for i in range(rows - 1):
        for j in range(segments):
            following = (j + 1) % segments
            a, b = i * segments + j, i * segments + following
            faces[f, 0], faces[f, 1], faces[f, 2] = a, a + segments, b
            faces[f + 1, 0], faces[f + 1, 1], faces[f + 1, 2] = b, a + segments, b + segments
            f += 2
    if capped:
        first, last = rows * segments, (rows - 1) * segments
        for c in range(3):
            positions[first, c], positions[first + 1, c] = path[0, c], path[rows - 1, c]
            coords[first, c], coords[first + 1, c] = coords[0, c], coords[last, c]
            tangents[first, c], tangents[first + 1, c] = tangents[0, c], tangents[last, c]
        for j in range(segments):
            following = (j + 1) % segments
            faces[f, 0], faces[f, 1], faces[f, 2] = first, j, following
            faces[f + 1, 0], faces[f + 1, 1], faces[f + 1, 2] = (
                first + 1,
                last + following,
                last + j,
            )
            f += 2
    return positions, coords, tangents, faces


@njit(cache=True)
def _turn_outwards(positions, normals, path, segments):  # type: ignore[no-untyped-def]
    rows = len(path)
    for k in range(len(positions)):
        if k < rows * segments:
            inner = path[k // segments]
        elif k == rows * segments:
            inner = path[0] + _direction(path, 0)
        else:
            inner = path[rows - 1] - _direction(path, rows - 1)
        away = 0.0
        for c in range(3):
            away += normals[k, c] * (positions[k, c] - inner[c])
        if away < 0.0:
            for c in range(3):
                normals[k, c] = -normals[k, c]
