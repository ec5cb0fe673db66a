"""Placement of the free vertices of the skin: density, holes, the midline, relaxation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ml.flame.procedural import parts
from ml.flame.procedural.surface import (
    LATITUDE_END,
    MOUTH_Y,
    FloatArray,
    base_points,
    domain_of,
    front_points,
    lower_border,
    sculpt,
    smooth_step,
    upper_border,
)

_NUM_CANDIDATES = 36000
_LLOYD_STEPS = 28


def direction(domain: FloatArray) -> FloatArray:
    """Return unit vectors (N, 3) of places (N, 2) of the domain: where they lie on the sphere."""
    lon, lat = domain.T
    return np.stack([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], axis=1)


def skin(domain: FloatArray) -> FloatArray:
    """Return the finished skin (N, 3) at places (N, 2) of the domain, mm."""
    return sculpt(base_points(domain[:, 0], domain[:, 1]))


def front_domain(xy: FloatArray) -> FloatArray:
    """Return places (N, 2) of the domain over frontal coordinates (N, 2), mm."""
    return np.column_stack(domain_of(front_points(xy[:, 0], xy[:, 1])))


def edge_length(points: FloatArray) -> FloatArray:
    """Return wanted length of the edges at points of the skin, mm, up to a common factor."""
    x, y, z = points.T
    x = np.abs(x)
    h = np.full(len(points), 5.2)
    h = h + 4.5 * smooth_step(y, 48.0, 95.0)
    h = h + 5.5 * smooth_step(z, 12.0, -45.0)
    h = h + 1.5 * smooth_step(y, -105.0, -135.0)

    def dense(centre: tuple[float, float], radii: tuple[float, float], value: float) -> None:
        nonlocal h
        q = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
        weight = smooth_step(q, 1.9, 0.9) * (z > 5.0)
        h = h + (np.minimum(value, h) - h) * weight

    dense((31.0, 20.0), (20.0, 14.0), 2.3)
    dense((0.0, -16.0), (19.0, 14.0), 2.1)
    dense((13.0, -20.0), (8.0, 8.0), 1.8)
    dense((0.0, 4.0), (11.0, 18.0), 3.0)
    dense((0.0, MOUTH_Y), (27.0, 14.0), 2.7)
    dense((31.0, 37.0), (21.0, 6.5), 2.2)
    ear = np.hypot(y + 3.0, z + 45.0)
    return np.where(x > 40.0, h + (np.minimum(5.5, h) - h) * smooth_step(ear, 55.0, 30.0), h)


def in_hole(points: FloatArray) -> NDArray[np.bool_]:
    """Return places of the base surface that belong to eye opening, lips or ear foot."""
    x, y, z = points.T
    margin = parts.eyelid_margin_xy()
    eye = _inside(np.column_stack([x, y]), margin) & (z > 0)
    lips = (x < 25.5) & (y < upper_border(x) + 1.3) & (y > lower_border(x) - 1.3) & (z > 20.0)
    foot = parts.ear_rings()[0][:, 1:]
    return eye | lips | (_inside(np.column_stack([y, z]), foot) & (x > 20.0))


def _inside(points: FloatArray, polygon: FloatArray) -> NDArray[np.bool_]:
    """Test (N, 2) points for a closed polygon by the even-odd rule."""
    inside = np.zeros(len(points), dtype=bool)
    a = polygon
    b = np.roll(polygon, -1, axis=0)
    for (ax, ay), (bx, by) in zip(a, b, strict=True):
        if ay == by:
            continue
        crosses = (points[:, 1] < ay) != (points[:, 1] < by)
        inside ^= crosses & (points[:, 0] < ax + (points[:, 1] - ay) * (bx - ax) / (by - ay))
    return inside


def candidates() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return places of the domain over the half skin, their points and skin areas, mm^2."""
    n = 2 * _NUM_CANDIDATES
    i = np.arange(n) + 0.5
    low = np.sin(LATITUDE_END)
    lat = np.arcsin(low + (1.0 - low) * i / n)
    lon = (i * np.pi * (1.0 + 5.0**0.5)) % (2.0 * np.pi)
    keep = lon < np.pi
    domain = np.column_stack([lon[keep], lat[keep]])
    step = 1e-3
    north, east = np.array([0.0, step]), np.array([step, 0.0])
    points = skin(domain)
    along_lat = (skin(domain + north) - points) / step
    along_lon = (skin(domain + east) - points) / step
    area = np.linalg.norm(np.cross(along_lat, along_lon), axis=1) / np.maximum(
        np.cos(domain[:, 1]), 1e-3
    )
    return domain, points, area * (2.0 * np.pi * (1.0 - low) / n)


def relax(
    fixed: FloatArray, num_free: int, candidates: tuple[FloatArray, FloatArray, FloatArray],
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Spread free sites over the skin: Lloyd's iteration, density from :func:`edge_length`."""
    domain, points, area = candidates
    length = edge_length(points)
    unit = direction(domain)
    weight = area * length**-4
    chance = area * length**-2
    site = domain[rng.choice(len(domain), num_free, replace=False, p=chance / chance.sum())]
    for _ in range(_LLOYD_STEPS):
        position = skin(site)
        owner = cKDTree(np.concatenate([position, fixed])).query(points)[1]
        mine = owner < num_free
        total = np.bincount(owner[mine], weight[mine], minlength=num_free)
        mean = np.stack(
            [
                np.bincount(owner[mine], weight[mine] * unit[mine, k], minlength=num_free)
                for k in range(3)
            ],
            1,
        )
        ok = total > 0
        mean[ok] = mean[ok] / np.linalg.norm(mean[ok], axis=1, keepdims=True)
        moved = np.column_stack(
            [np.arctan2(mean[:, 0], mean[:, 2]), np.arcsin(np.clip(mean[:, 1], -1, 1))]
        )
        # a site without places restarts where the density is badly served
        moved[~ok] = domain[
            rng.choice(len(domain), int((~ok).sum()), replace=False, p=weight / weight.sum())
        ]
        site = moved
    return site


def _spaced(run: FloatArray, domain: FloatArray, factor: float, parity: int | None) -> FloatArray:
    """Return interior places (M, 2) of a fine path of the domain at the wanted spacing.

    Args:
        run: (N,) increasing parameter of the path.
        domain: (N, 2) its places.
        factor: common factor of the edge lengths.
        parity: wanted remainder of M by 2, or None.
    """
    points = skin(domain)
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    length = 0.5 * (edge_length(points[1:]) + edge_length(points[:-1])) * factor
    arc = np.concatenate([[0.0], np.cumsum(step / length)])
    count = round(float(arc[-1]))
    if parity is not None and (count - 1) % 2 != parity:
        count += 1
    return np.interp(np.arange(1, count) * arc[-1] / count, arc, run)


def midline(
    factor: float, above: float, below: float, num_others: int
) -> tuple[FloatArray, FloatArray]:
    """Return places on the midline over the head and under the mouth.

    Args:
        factor: common factor of the edge lengths.
        above: latitude of the first vertex above the mouth, rad.
        below: latitude of the first vertex under the mouth, rad.
        num_others: vertices on the midline from elsewhere; together they must be odd in number, as
            the skin's vertices are.
    """
    run = np.linspace(below, LATITUDE_END, 1500)[::-1]
    path = np.column_stack([np.zeros(len(run)), run])
    at = _spaced(run, path, factor, None)
    down = np.column_stack([np.zeros(len(at)), at])
    # latitude runs on over the crown: beyond pi/2 it is the back of the head
    run = np.linspace(above, np.pi - LATITUDE_END, 4000)
    at = _spaced(run, _over(run), factor, (1 + num_others + len(down)) % 2)
    return _over(at), down


def _over(run: FloatArray) -> FloatArray:
    behind = run > np.pi / 2
    return np.column_stack([np.where(behind, np.pi, 0.0), np.where(behind, np.pi - run, run)])
