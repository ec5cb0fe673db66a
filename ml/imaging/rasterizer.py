"""Z-buffer rasteriser for triangle meshes on the CPU: visibility and interpolation.

Shading, lights and colours belong to the callers.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]

EMPTY = -1
"""Face index of a pixel that no triangle covers."""


def rasterize(
    vertices_px: Float32Array, faces: Int32Array, height: int, width: int
) -> tuple[Int32Array, Float32Array, Float32Array]:
    """Find the nearest triangle at every pixel centre.

    Both sides of a triangle are drawn; barycentric weights are linear on the screen, which is exact
    under weak perspective. A pixel centre is at (column + 0.5, row + 0.5).

    Args:
        vertices_px: (V, 3) float32, image frame: x right, y down in pixels; smaller z is nearer.
        faces: (F, 3) int32 vertex indices.
        height: rows of the result, pixels.
        width: columns of the result, pixels.

    Returns:
        face_index (height, width) int32, -1 where empty; barycentric (height, width, 3) float32
        weights of the three corners, 0 where empty; depth (height, width) float32, the z of
        vertices_px, +inf where empty.

    Raises:
        ValueError: an array has the wrong shape, or a size is not positive.
    """
    vertices = np.ascontiguousarray(vertices_px, dtype=np.float32)
    triangles = np.ascontiguousarray(faces, dtype=np.int32)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"rasterize: vertices_px must be (V, 3), got {vertices.shape}")
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"rasterize: faces must be (F, 3), got {triangles.shape}")
    if height <= 0 or width <= 0:
        raise ValueError(f"rasterize: height and width must be positive, got {height} x {width}")
    if len(triangles) and (triangles.min() < 0 or triangles.max() >= len(vertices)):
        raise ValueError(
            f"rasterize: faces must index the {len(vertices)} vertices, "
            f"got {triangles.min()}..{triangles.max()}"
        )
    face_index = np.full((height, width), EMPTY, dtype=np.int32)
    barycentric = np.zeros((height, width, 3), dtype=np.float32)
    depth = np.full((height, width), np.inf, dtype=np.float32)
    _fill(vertices, triangles, face_index, barycentric, depth)
    return face_index, barycentric, depth


def interpolate(
    attributes: NDArray[np.floating],
    faces: Int32Array,
    face_index: Int32Array,
    barycentric: Float32Array,
) -> Float32Array:
    """Blend per-vertex attributes at every covered pixel.

    Args:
        attributes: (V, C) float, any unit.
        faces: (F, 3) int32, the faces given to :func:`rasterize`.
        face_index: (H, W) int32 from :func:`rasterize`.
        barycentric: (H, W, 3) float32 from :func:`rasterize`.

    Returns:
        (H, W, C) float32, 0 where no triangle covers the pixel.

    Raises:
        ValueError: attributes is not two-dimensional.
    """
    values = np.ascontiguousarray(attributes, dtype=np.float32)
    if values.ndim != 2:
        raise ValueError(f"interpolate: attributes must be (V, C), got {values.shape}")
    image = np.zeros((*face_index.shape, values.shape[1]), dtype=np.float32)
    triangles = np.ascontiguousarray(faces, dtype=np.int32)
    _interpolate(values, triangles, face_index, barycentric, image)
    return image


def vertex_normals(vertices: NDArray[np.floating], faces: Int32Array) -> Float32Array:
    """Return the area-weighted unit normals, on the side from which faces turn anticlockwise.

    Args:
        vertices: (V, 3) float, a right-handed frame.
        faces: (F, 3) int32.

    Returns:
        (V, 3) float32 unit vectors; zero for a vertex without area.
    """
    points = np.ascontiguousarray(vertices, dtype=np.float32)
    normals = np.zeros_like(points)
    _accumulate_normals(points, np.ascontiguousarray(faces, dtype=np.int32), normals)
    return normals


@njit(cache=True, nogil=True, fastmath=False)
def _fill(vertices, faces, face_index, barycentric, depth):  # type: ignore[no-untyped-def]
    height, width = face_index.shape
    for f in range(faces.shape[0]):
        ia, ib, ic = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = vertices[ia, 0], vertices[ia, 1], vertices[ia, 2]
        bx, by, bz = vertices[ib, 0], vertices[ib, 1], vertices[ib, 2]
        cx, cy, cz = vertices[ic, 0], vertices[ic, 1], vertices[ic, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)  # twice the signed area, px^2
        # Also false for NaN and infinity: such a triangle is invisible instead of out of bounds.
        if not (1e-12 < abs(area) < 1e12):
            continue
        x_min, x_max = min(ax, bx, cx), max(ax, bx, cx)
        y_min, y_max = min(ay, by, cy), max(ay, by, cy)
        if x_max < 0.5 or y_max < 0.5 or x_min > width - 0.5 or y_min > height - 0.5:
            continue
        # Pixels whose centre, half a pixel inside, is in the bounding box.
        column_from = max(0, int(np.ceil(x_min - 0.5)))
        column_to = min(width - 1, int(np.floor(x_max - 0.5)))
        row_from = max(0, int(np.ceil(y_min - 0.5)))
        row_to = min(height - 1, int(np.floor(y_max - 0.5)))
        inverse = 1.0 / area
        # Weights are linear in x: one evaluation a row, then additions.
        step_a = (by - cy) * inverse
        step_b = (cy - ay) * inverse
        for row in range(row_from, row_to + 1):
            py = row + 0.5
            px = column_from + 0.5
            weight_a = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
            weight_b = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
            for column in range(column_from, column_to + 1):
                weight_c = 1.0 - weight_a - weight_b
                # The slack closes the cracks that rounding opens between neighbours.
                if weight_a >= -1e-6 and weight_b >= -1e-6 and weight_c >= -1e-6:
                    z = weight_a * az + weight_b * bz + weight_c * cz
                    if z < depth[row, column]:  # of equal depths the first triangle stays
                        depth[row, column] = z
                        face_index[row, column] = f
                        barycentric[row, column, 0] = weight_a
                        barycentric[row, column, 1] = weight_b
                        barycentric[row, column, 2] = weight_c
                weight_a += step_a
                weight_b += step_b


@njit(cache=True, nogil=True)
def _interpolate(attributes, faces, face_index, barycentric, image):  # type: ignore[no-untyped-def]
    height, width = face_index.shape
    channels = attributes.shape[1]
    for row in range(height):
        for column in range(width):
            f = face_index[row, column]
            if f < 0:
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa = barycentric[row, column, 0]
            wb = barycentric[row, column, 1]
            wc = barycentric[row, column, 2]
            for k in range(channels):
                image[row, column, k] = (
                    wa * attributes[a, k] + wb * attributes[b, k] + wc * attributes[c, k]
                )


@njit(cache=True, nogil=True)
def _accumulate_normals(vertices, faces, normals):  # type: ignore[no-untyped-def]
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        # u x v: twice the area long
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            normals[k, 0] += nx
            normals[k, 1] += ny
            normals[k, 2] += nz
    for i in range(normals.shape[0]):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2)
        if length > 0.0:
            for k in range(3):
                normals[i, k] /= length
