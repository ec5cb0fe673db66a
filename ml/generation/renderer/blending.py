"""Smooth transitions between limbs and torso, which are swept separately.

The body is also described as an implicit surface, a smooth union of round cones and of an
elliptical loft. Where the sweeps meet, the union is outside them; their vertices are pushed out
to it and take its normals, so that a shoulder has no seam.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit

from ml.generation.renderer.meshes import Mesh


def blend(
    mesh: Mesh, loft: np.ndarray, cones: np.ndarray, radius_m: float, border_m: float = np.inf
) -> Mesh:
    """Push vertices that lie inside the smooth union out to its surface.

    Args:
        mesh: the sweeps, metres.
        loft: (S, 11) float32 stations of the torso: centre 3, side axis 3, front axis 3, half
            width, half depth.
        cones: (K, 8) float32 limbs: start 3, end 3, start radius, end radius.
        radius_m: reach of the smoothing.
        border_m: y of the image's lower border; vertices below it are not moved.

    Returns:
        The mesh with moved vertices and adapted normals.
    """
    positions, normals = mesh.positions.copy(), mesh.normals.copy()
    surface = loft.astype(np.float32), cones.astype(np.float32)
    _push_out(positions, normals, *surface, radius_m, border_m)
    return replace(mesh, positions=positions, normals=normals)


@njit(cache=True, fastmath=True)
def _loft_distance(loft, x, y, z):  # type: ignore[no-untyped-def]
    best = 1e9
    for i in range(loft.shape[0] - 1):
        dx = loft[i + 1, 0] - loft[i, 0]
        dy = loft[i + 1, 1] - loft[i, 1]
        dz = loft[i + 1, 2] - loft[i, 2]
        px, py, pz = x - loft[i, 0], y - loft[i, 1], z - loft[i, 2]
        length2 = dx * dx + dy * dy + dz * dz + 1e-9
        raw = (px * dx + py * dy + pz * dz) / length2
        t = min(max(raw, 0.0), 1.0)
        over = abs(raw - t) * np.sqrt(length2)
        ox, oy, oz = px - t * dx, py - t * dy, pz - t * dz
        side = (
            ox * (loft[i, 3] + t * (loft[i + 1, 3] - loft[i, 3]))
            + oy * (loft[i, 4] + t * (loft[i + 1, 4] - loft[i, 4]))
            + oz * (loft[i, 5] + t * (loft[i + 1, 5] - loft[i, 5]))
        )
        front = (
            ox * (loft[i, 6] + t * (loft[i + 1, 6] - loft[i, 6]))
            + oy * (loft[i, 7] + t * (loft[i + 1, 7] - loft[i, 7]))
            + oz * (loft[i, 8] + t * (loft[i + 1, 8] - loft[i, 8]))
        )
        a = loft[i, 9] + t * (loft[i + 1, 9] - loft[i, 9])
        b = loft[i, 10] + t * (loft[i + 1, 10] - loft[i, 10])
        k0 = np.sqrt((side / a) ** 2 + (front / b) ** 2)
        k1 = np.sqrt((side / (a * a)) ** 2 + (front / (b * b)) ** 2) + 1e-6
        distance = k0 * (k0 - 1.0) / k1
        if over > 0.0:
            inside = max(distance, 0.0)
            distance = np.sqrt(inside * inside + over * over)
        best = min(best, distance)
    return best


@njit(cache=True, fastmath=True)
def _cone_distance(cone, x, y, z):  # type: ignore[no-untyped-def]
    dx, dy, dz = cone[3] - cone[0], cone[4] - cone[1], cone[5] - cone[2]
    px, py, pz = x - cone[0], y - cone[1], z - cone[2]
    t = (px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz + 1e-9)
    t = min(max(t, 0.0), 1.0)
    qx, qy, qz = px - t * dx, py - t * dy, pz - t * dz
    return np.sqrt(qx * qx + qy * qy + qz * qz) - (cone[6] + t * (cone[7] - cone[6]))


@njit(cache=True, fastmath=True)
def _union(loft, cones, x, y, z, k):  # type: ignore[no-untyped-def]
    distance = _loft_distance(loft, x, y, z)
    for i in range(cones.shape[0]):
        other = _cone_distance(cones[i], x, y, z)
        h = max(k - abs(distance - other), 0.0) / k
        distance = min(distance, other) - h * h * k * 0.25
    return distance


@njit(cache=True, fastmath=True)
def _push_out(positions, normals, loft, cones, k, border):  # type: ignore[no-untyped-def]
    step = 0.002
    for i in range(positions.shape[0]):
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        if y > border:
            continue
        distance = _union(loft, cones, x, y, z, k)
        # Deep vertices stay hidden inside; moving them would only fold the surface.
        if distance > -0.0008 or distance < -0.035:
            continue
        gx = _union(loft, cones, x + step, y, z, k) - distance
        gy = _union(loft, cones, x, y + step, z, k) - distance
        gz = _union(loft, cones, x, y, z + step, k) - distance
        length = np.sqrt(gx * gx + gy * gy + gz * gz) + 1e-9
        gx, gy, gz = gx / length, gy / length, gz / length
        push = min(-distance, 0.02)
        positions[i, 0] += push * gx
        positions[i, 1] += push * gy
        positions[i, 2] += push * gz
        weight = min(1.0, -distance / 0.008)
        nx = normals[i, 0] + weight * (gx - normals[i, 0])
        ny = normals[i, 1] + weight * (gy - normals[i, 1])
        nz = normals[i, 2] + weight * (gz - normals[i, 2])
        length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
        normals[i, 0], normals[i, 1], normals[i, 2] = nx / length, ny / length, nz / length
