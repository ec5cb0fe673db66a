"""Value noise: smooth pseudo-random functions of position, the same on every run."""

from __future__ import annotations

import numpy as np
from numba import njit

from ml.imaging.rasterizer import Float32Array


@njit(cache=True, inline="always")
def _hash(x: int, y: int, z: int) -> float:
    # Mixing in 32 bits; the constants are large odd numbers.
    h = (np.int64(x) * 374761393 + np.int64(y) * 668265263 + np.int64(z) * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = h ^ (h >> 16)
    return h * (1.0 / 4294967295.0)


@njit(cache=True, fastmath=True)
def value_noise(x, y, z):  # type: ignore[no-untyped-def]
    """Smooth noise in [0, 1] with one lattice cell per unit.

    Args:
        x: first coordinate.
        y: second coordinate.
        z: third coordinate.

    Returns:
        The noise value.
    """
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    ix, iy, iz = int(fx), int(fy), int(fz)
    u, v, w = x - fx, y - fy, z - fz
    u = u * u * (3.0 - 2.0 * u)
    v = v * v * (3.0 - 2.0 * v)
    w = w * w * (3.0 - 2.0 * w)
    low = (_hash(ix, iy, iz) * (1 - u) + _hash(ix + 1, iy, iz) * u) * (1 - v) + (
        _hash(ix, iy + 1, iz) * (1 - u) + _hash(ix + 1, iy + 1, iz) * u
    ) * v
    high = (_hash(ix, iy, iz + 1) * (1 - u) + _hash(ix + 1, iy, iz + 1) * u) * (1 - v) + (
        _hash(ix, iy + 1, iz + 1) * (1 - u) + _hash(ix + 1, iy + 1, iz + 1) * u
    ) * v
    return low * (1 - w) + high * w


@njit(cache=True, fastmath=True)
def value_noise_2d(x, y, seed):  # type: ignore[no-untyped-def]
    """Smooth noise in [0, 1] of two coordinates; `seed` picks the plane.

    Args:
        x: first coordinate.
        y: second coordinate.
        seed: any number; its integer part matters.

    Returns:
        The noise value.
    """
    fx, fy = np.floor(x), np.floor(y)
    ix, iy, iz = int(fx), int(fy), int(seed)
    u, v = x - fx, y - fy
    u = u * u * (3.0 - 2.0 * u)
    v = v * v * (3.0 - 2.0 * v)
    return (_hash(ix, iy, iz) * (1 - u) + _hash(ix + 1, iy, iz) * u) * (1 - v) + (
        _hash(ix, iy + 1, iz) * (1 - u) + _hash(ix + 1, iy + 1, iz) * u
    ) * v


@njit(cache=True, fastmath=True)
def noise_points(points, frequency, seed):  # type: ignore[no-untyped-def]
    """Return noise in [-1, 1] at (N, 3) points, `frequency` cells per unit, shifted by `seed`."""
    out = np.empty(points.shape[0], np.float32)
    for i in range(points.shape[0]):
        out[i] = (
            2.0
            * value_noise(
                points[i, 0] * frequency + seed,
                points[i, 1] * frequency + 1.7 * seed,
                points[i, 2] * frequency + 2.3 * seed,
            )
            - 1.0
        )
    return out


@njit(cache=True, fastmath=True)
def _fractal(height, width, cell, octaves, seed, stretch):  # type: ignore[no-untyped-def]
    image = np.zeros((height, width), np.float32)
    amplitude = 0.5
    frequency = 1.0 / cell
    total = 0.0
    for octave in range(octaves):
        for row in range(height):
            for column in range(width):
                image[row, column] += amplitude * value_noise_2d(
                    column * frequency / stretch, row * frequency, seed + 31.0 * octave
                )
        total += amplitude
        amplitude *= 0.5
        frequency *= 2.0
    return image / total


def fractal_image(
    height: int, width: int, cell: float, octaves: int, seed: float, stretch: float = 1.0
) -> Float32Array:
    """Return an image of fractal noise.

    Args:
        height: pixels.
        width: pixels.
        cell: size of the coarsest cells, pixels.
        octaves: number of octaves, each half the cell of the one before.
        seed: any number.
        stretch: width of the cells over their height.

    Returns:
        (height, width) float32 in [0, 1], mean about 0.5.
    """
    return _fractal(height, width, float(cell), octaves, float(seed), float(stretch))
