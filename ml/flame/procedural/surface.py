"""The resting shape of the procedural head: an implicit surface with features sculpted on it.

Lengths are millimetres in the FLAME frame (x to the subject's left, y up, z to the viewer). Numbers
are adult anthropometric means (landmark to landmark distances), drawn as splines over the height y.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

FloatArray = NDArray[np.float64]

EYE_CENTRE = np.array([31.0, 18.0, 23.8])
"""Centre of the left eyeball (x > 0), mm."""
EYE_RADIUS = 13.4
MOUTH_Y = -47.0
MOUTH_HALF_WIDTH = 25.5
RAY_ORIGIN = np.array([0.0, -15.0, -45.0])
DOMAIN_TILT = np.deg2rad(22.0)
LATITUDE_TURN = np.deg2rad(-45.0)
LATITUDE_END = np.deg2rad(-76.0)
_END_HEIGHT = -174.0
_END_SLOPE = np.deg2rad(-4.0)


def smooth_max(a: FloatArray, b: FloatArray, k: FloatArray | float) -> FloatArray:
    """Return the maximum with a rounded corner of size k (polynomial blend)."""
    h = np.clip(0.5 + 0.5 * (a - b) / k, 0.0, 1.0)
    return b + (a - b) * h + k * h * (1.0 - h)


def smooth_min(a: FloatArray, b: FloatArray, k: FloatArray | float) -> FloatArray:
    """Return the minimum with a rounded corner of size k (polynomial blend)."""
    return -smooth_max(-a, -b, k)


def bump(distance: FloatArray, sigma: float) -> FloatArray:
    """Return the Gaussian of a distance."""
    return np.exp(-0.5 * (distance / sigma) ** 2)


def smooth_step(value: FloatArray, low: float, high: float) -> FloatArray:
    """Return 0 below low, 1 above high, a cubic in between; low may exceed high."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


# ------------------------------------------------------------------ implicit base surface
# height y: front z, half width, z of the widest place, roundness exponent of the front half
_FACE = np.array(
    [
        [80.0, 36.0, 62.0, -40.0, 2.2],
        [62.0, 46.5, 67.0, -36.0, 2.2],
        [45.0, 51.0, 68.0, -30.0, 2.2],
        [32.0, 51.0, 67.0, -27.0, 2.15],
        [20.0, 48.5, 67.0, -25.0, 2.0],
        [5.0, 47.0, 68.0, -24.0, 2.05],
        [-10.0, 48.5, 67.0, -24.0, 2.05],
        [-25.0, 51.5, 63.5, -25.0, 2.0],
        [-38.0, 54.5, 59.5, -26.0, 1.95],
        [-50.0, 54.5, 55.5, -27.0, 1.9],
        [-62.0, 52.0, 51.5, -27.0, 1.9],
        [-75.0, 51.5, 46.5, -25.0, 1.9],
        [-88.0, 50.5, 41.0, -20.0, 1.9],
        [-100.0, 45.0, 36.0, -15.0, 1.9],
    ]
)
# height y: front z, back z, half width
_NECK = np.array(
    [
        [-20.0, -25.0, -116.0, 50.0],
        [-60.0, -18.0, -115.0, 50.0],
        [-90.0, -15.0, -115.0, 50.0],
        [-112.0, -17.0, -117.0, 51.5],
        [-128.0, -18.5, -121.0, 56.0],
        [-142.0, -17.0, -129.0, 66.0],
        [-155.0, -13.0, -137.0, 80.0],
        [-167.0, -6.0, -145.0, 95.0],
        [-178.0, 3.0, -152.0, 110.0],
        [-190.0, 12.0, -160.0, 126.0],
    ]
)
# z: height of the lower border of the jaw
_JAW_BORDER = np.array(
    [[-110.0, -20.0], [-70.0, -30.0], [-45.0, -46.0], [-30.0, -66.0], [-5.0, -83.0], [20.0, -94.0],
     [40.0, -98.5], [60.0, -100.0]]
)  # fmt: skip


@lru_cache(maxsize=1)
def _curves() -> tuple[PchipInterpolator, PchipInterpolator, PchipInterpolator]:
    face = PchipInterpolator(_FACE[::-1, 0], _FACE[::-1, 1:], axis=0)
    neck = PchipInterpolator(_NECK[::-1, 0], _NECK[::-1, 1:], axis=0)
    border = PchipInterpolator(_JAW_BORDER[:, 0], _JAW_BORDER[:, 1])
    return face, neck, border


def _section(x: FloatArray, dz: FloatArray, wx: FloatArray, wz: FloatArray, n: FloatArray):  # type: ignore[no-untyped-def]
    """Return the distance-like value of a superellipse: negative inside."""
    norm = (np.abs(x / wx) ** n + np.abs(dz / wz) ** n + 1e-12) ** (1.0 / n)
    return (1.0 - 1.0 / norm) * np.sqrt(x * x + dz * dz + 1e-9)


def base_distance(points: FloatArray) -> FloatArray:
    """Return the implicit function of skull, face, jaw and neck without features.

    Args:
        points: (N, 3) mm.

    Returns:
        (N,) approximate signed distance in mm, negative inside.
    """
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    face_curve, neck_curve, border_curve = _curves()
    # skull: fuller behind than in front
    cy, cz = 42.0, -47.0
    sy = np.where(y > cy, 90.0, 84.0)
    sz = np.where(z > cz, 97.0, 95.0)
    # the skull is widest behind the ears, temples are narrower
    sx = 74.5 - 6.0 * smooth_step(z, -40.0, 40.0) - 3.0 * smooth_step(z, -70.0, -140.0)
    n = 2.25
    norm = (np.abs(x / sx) ** n + np.abs((y - cy) / sy) ** n + np.abs((z - cz) / sz) ** n) ** (
        1 / n
    )
    offset = np.sqrt(x * x + (y - cy) ** 2 + (z - cz) ** 2)
    skull = (1.0 - 1.0 / np.maximum(norm, 1e-6)) * offset
    # face
    front, width, widest, roundness = face_curve(np.clip(y, -100.0, 80.0)).T
    dz = z - widest
    face = _section(
        x, dz, width, np.where(dz > 0, front - widest, 62.0), np.where(dz > 0, roundness, 2.0)
    )
    face = smooth_max(face, (y - 72.0) * 0.8, 20.0)
    face = smooth_max(face, (border_curve(np.clip(z, -110.0, 60.0)) - y) * 0.85, 14.0)
    # neck and the rise of the shoulders
    nf, nb, nw = neck_curve(np.clip(y, -190.0, -20.0)).T
    middle = 0.5 * (nf + nb)
    neck = _section(x, z - middle, nw, 0.5 * (nf - nb), np.full_like(x, 2.15))
    neck = smooth_max(neck, (y + 25.0) * 0.8, 20.0)
    head = smooth_min(skull, face, 14.0)
    # the nape is fuller than the corner under the jaw
    return smooth_min(head, neck, 12.0 + 16.0 * smooth_step(z, -55.0, -100.0))


def rays(longitude: FloatArray, latitude: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return origin and direction of the ray that belongs to a place of the spherical domain.

    Above the corner of chin and throat all rays leave one point; latitudes are counted from a plane
    that is tilted down in front, as that corner is. Further down the origin slides along the neck
    while the rays level out, so that the neck and the shoulders are seen and no two rays cross.

    Args:
        longitude: (N,) rad, 0 in front, pi behind.
        latitude: (N,) rad, pi/2 at the crown, LATITUDE_END at the lower edge of the neck.

    Returns:
        origins (N, 3) mm and unit directions (N, 3).
    """
    t = np.clip((LATITUDE_TURN - latitude) / (LATITUDE_TURN - LATITUDE_END), 0.0, 1.1)
    # level out late: near the throat steep neighbours would cross otherwise
    late = t**1.7
    slope = np.where(t > 0, LATITUDE_TURN + (_END_SLOPE - LATITUDE_TURN) * late, latitude)
    tilt = DOMAIN_TILT * (1.0 - late)
    origin = np.zeros((len(longitude), 3))
    origin[:, 1] = RAY_ORIGIN[1] + (_END_HEIGHT - RAY_ORIGIN[1]) * t
    origin[:, 2] = RAY_ORIGIN[2] - 28.0 * t
    x, y, z = np.cos(slope) * np.sin(longitude), np.sin(slope), np.cos(slope) * np.cos(longitude)
    c, s = np.cos(tilt), np.sin(tilt)
    return origin, np.stack([x, c * y - s * z, s * y + c * z], axis=1)


def cast(
    origin: FloatArray, direction: FloatArray, near: float = 5.0, far: float = 190.0
) -> FloatArray:
    """Hit the base surface from inside by bisection.

    Args:
        origin: (N, 3) mm, inside.
        direction: (N, 3) unit vectors.
        near: distance that is inside for every ray, mm.
        far: distance that is outside for every ray, mm.

    Returns:
        (N, 3) points of the base surface, mm.
    """
    low = np.full(len(origin), near)
    high = np.full(len(origin), far)
    for _ in range(34):
        middle = 0.5 * (low + high)
        inside = base_distance(origin + middle[:, None] * direction) < 0
        low = np.where(inside, middle, low)
        high = np.where(inside, high, middle)
    return origin + (0.5 * (low + high))[:, None] * direction


def base_points(longitude: FloatArray, latitude: FloatArray) -> FloatArray:
    """Return points (N, 3) of the base surface at places of the domain, mm."""
    return cast(*rays(longitude, latitude))


def front_points(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return points (N, 3) of the front of the base surface over frontal coordinates x, y in mm."""
    origin = np.stack([x, y, np.full_like(x, -30.0)], axis=1)
    return cast(origin, np.tile([0.0, 0.0, 1.0], (len(x), 1)), 0.0, 120.0)


def side_points(y: FloatArray, z: FloatArray) -> FloatArray:
    """Return points (N, 3) of the left side of the base surface over lateral y, z in mm."""
    origin = np.stack([np.zeros_like(y), y, z], axis=1)
    return cast(origin, np.tile([1.0, 0.0, 0.0], (len(y), 1)), 0.0, 120.0)


def domain_of(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return longitude and latitude of points above the chin line; inverts :func:`base_points`."""
    d = points - RAY_ORIGIN
    c, s = np.cos(DOMAIN_TILT), np.sin(DOMAIN_TILT)
    d = np.column_stack([d[:, 0], c * d[:, 1] + s * d[:, 2], -s * d[:, 1] + c * d[:, 2]])
    return np.arctan2(d[:, 0], d[:, 2]), np.arctan2(d[:, 1], np.hypot(d[:, 0], d[:, 2]))


# ------------------------------------------------------------------ features of the face
def mouth_line(x: FloatArray) -> FloatArray:
    """Return the height of the line between the lips, mm."""
    t = np.clip(np.abs(x) / MOUTH_HALF_WIDTH, 0.0, 1.3)
    return MOUTH_Y - 0.9 * bump(x, 3.5) + 0.9 * bump(np.abs(x) - 10.0, 6.0) + 0.9 * t**3


def upper_border(x: FloatArray) -> FloatArray:
    """Return the height of the upper edge of the red of the lips (Cupid's bow), mm."""
    t = np.clip(np.abs(x) / MOUTH_HALF_WIDTH, 0.0, 1.0)
    arch = 7.6 * (1.0 - t**1.7) + 1.0 * bump(np.abs(x) - 6.0, 3.2) - 1.3 * bump(x, 2.6)
    return mouth_line(x) + np.maximum(arch, 0.0)


def lower_border(x: FloatArray) -> FloatArray:
    """Return the height of the lower edge of the red of the lips, mm."""
    t = np.clip(np.abs(x) / MOUTH_HALF_WIDTH, 0.0, 1.0)
    return mouth_line(x) - 10.2 * (1.0 - t**2.2)


def brow_curve(t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the course of the left eyebrow.

    Args:
        t: (N,) 0 at the inner end, 1 at the outer end.

    Returns:
        x, y of the middle line and half the height of the brow, each (N,), mm.
    """
    inside = np.clip(t, 0.0, 1.0)
    y = 35.4 + 6.0 * np.sin(np.pi * (0.12 + 0.72 * inside)) - 4.6 * inside**2
    return 11.0 + 41.0 * t, y, 3.6 - 2.4 * inside


def eye_opening(angle: FloatArray) -> FloatArray:
    """Return almond outline of the left eye opening.

    Args:
        angle: (N,) rad; 0 at the outer corner, pi/2 up, pi at the inner corner.

    Returns:
        (N, 2) frontal coordinates x, y, mm.
    """
    c, s = np.cos(angle), np.sin(angle)
    x = EYE_CENTRE[0] + 0.2 + 14.2 * c
    # the upper lid is highest slightly medially, the lower lid lowest laterally
    shift = np.where(s > 0, -0.12, 0.16)
    t = np.clip(c - shift * (1.0 - c * c), -1.0, 1.0)
    half = np.maximum(1.0 - t * t, 0.0) ** 0.62
    y = EYE_CENTRE[1] + np.where(s > 0, 5.0, -4.4) * half + 0.9 * c
    return np.stack([x, y], axis=1)


def eyelid_shell(x: FloatArray, y: FloatArray, thickness: FloatArray | float) -> FloatArray:
    """Return height z of a shell around the left eyeball, the eye's corners drawn forward, mm."""
    dx, dy = x - EYE_CENTRE[0], y - EYE_CENTRE[1]
    radius = EYE_RADIUS + thickness
    height = np.sqrt(np.maximum(radius**2 - dx * dx - dy * dy, 0.0))
    # beyond its outline the shell falls away
    sphere = EYE_CENTRE[2] + height - 40.0 * np.maximum(np.hypot(dx, dy) / radius - 1.0, 0.0)
    corner = 29.6 - 0.30 * dx - 0.04 * np.abs(dy) ** 1.6
    corner = corner + 1.5 * smooth_step(dx, -8.0, -15.0)
    return smooth_max(sphere, corner, 2.5)


_NOSE = np.array(
    # y, ridge z, half width of the ridge
    [[36.0, 51.0, 9.0], [28.0, 50.3, 7.0], [20.0, 51.3, 5.6], [12.0, 54.6, 5.4], [4.0, 58.8, 5.8],
     [-4.0, 63.2, 6.6], [-10.0, 66.6, 7.6], [-16.0, 68.6, 8.4], [-20.5, 67.0, 8.4],
     [-24.0, 61.0, 8.0],
     [-26.5, 56.5, 7.0], [-29.0, 53.5, 6.0], [-35.0, 50.0, 6.0]]
)  # fmt: skip


@lru_cache(maxsize=1)
def _nose_curve() -> PchipInterpolator:
    return PchipInterpolator(_NOSE[::-1, 0], _NOSE[::-1, 1:], axis=0)


def _dome(
    x: FloatArray,
    y: FloatArray,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
) -> FloatArray:
    """Return height z of the front of an ellipsoid, falling away steeply outside its outline."""
    q = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
    inside = np.sqrt(np.maximum(1.0 - q, 0.0))
    return centre[2] + radii[2] * inside - 1.2 * radii[2] * np.maximum(np.sqrt(q) - 1.0, 0.0)


def sculpt(points: FloatArray) -> FloatArray:
    """Displace base points into the finished skin (without ears, lids' rims and mouth cavity).

    Args:
        points: (N, 3) base surface points with x >= 0, mm.

    Returns:
        (N, 3) skin points, mm.
    """
    x, y, z0 = points[:, 0], points[:, 1], points[:, 2]
    front = smooth_step(z0, -8.0, 12.0) * smooth_step(y, -128.0, -104.0)
    z = z0.copy()
    z = z + _soft_relief(x, y)
    z = _eyes(x, y, z)
    z = _nose(x, y, z)
    z = _lips(x, y, z)
    out = points.copy()
    out[:, 2] = z0 + front * (z - z0)
    # wings of the nose overhang a little
    wing = (
        bump(np.hypot(x - 14.0, (y + 19.5) * 0.9), 4.5) * smooth_step(out[:, 2], 50.0, 56.0) * front
    )
    out[:, 0] += 2.2 * wing * np.tanh(x / 4.0)
    # larynx, hollow above the breast bone, muscles at the side of the neck, spine
    throat = smooth_step(z0, -45.0, -20.0)
    out[:, 2] += throat * (
        2.6 * bump(np.hypot(x, (y + 128.0) / 1.4), 7.5)
        - 4.0 * bump(np.hypot(x / 1.4, y + 181.0), 9.0)
    )
    ridge_x = 44.0 + (y + 80.0) * 0.27
    neck = smooth_step(y, -95.0, -115.0) * smooth_step(z0, -70.0, -25.0)
    out[:, 2] += neck * 2.4 * bump(x - np.maximum(ridge_x, 9.0), 7.0)
    nape = (
        smooth_step(z0, -85.0, -105.0)
        * smooth_step(y, -160.0, -120.0)
        * smooth_step(y, -20.0, -60.0)
    )
    out[:, 2] += nape * (1.6 * bump(x - 17.0, 9.0) - 1.8 * bump(x, 5.0))
    return out


def _soft_relief(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return brows, cheeks, chin, folds: shallow relief added to the front of the face, mm."""
    r = np.zeros_like(x)
    brow_y = 33.0 + 2.5 * bump(x - 32.0, 14.0)
    r += (
        2.2
        * bump(y - brow_y, 6.5)
        * smooth_step(x, 50.0, 36.0)
        * (0.25 + 0.75 * smooth_step(x, 4.0, 18.0))
    )
    r += 1.5 * bump(np.hypot((x - 26.0) / 1.4, y - 62.0), 14.0)  # frontal eminence
    r -= 1.6 * bump(np.hypot((x - 60.0), (y - 44.0) / 1.6), 12.0)  # temple
    r += 3.6 * bump(
        np.hypot((x - 43.0) / 1.25, (y + 5.0) / 0.9 - 0.15 * (x - 43.0)), 11.5
    )  # cheek bone
    r -= 2.0 * bump(np.hypot((x - 42.0) / 1.1, (y + 42.0) / 1.4), 12.0)  # hollow below it
    r += 1.6 * bump(np.hypot((x - 29.0), (y + 28.0)), 9.0)  # soft cheek next to the nose
    fold = np.abs((x - 17.5) - 0.52 * (-20.0 - y))
    r -= 1.5 * bump(fold, 2.6) * smooth_step(y, -56.0, -46.0) * smooth_step(y, -14.0, -22.0)
    r += 4.2 * bump(np.hypot(x / 1.35, (y + 81.0)), 10.5)  # chin
    r -= 0.7 * bump(x, 3.0) * bump(y + 83.0, 5.0)
    r -= 3.2 * bump(np.hypot(x / 2.0, (y + 65.0)), 5.0)  # fold between lip and chin
    r += 1.3 * bump(np.hypot((x - 34.0) / 1.3, y + 72.0), 9.0)  # jowl
    r -= 1.2 * bump(np.hypot((x - 22.0), y - 5.0), 6.5)  # tear trough
    r -= (
        1.2 * bump(x, 1.9) * smooth_step(y, -41.0, -38.0) * smooth_step(y, -26.0, -30.0)
    )  # philtrum
    r += 0.8 * bump(x - 4.8, 1.8) * smooth_step(y, -42.0, -39.0) * smooth_step(y, -26.0, -30.0)
    return r


def _eyes(x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    dx, dy = x - EYE_CENTRE[0], y - EYE_CENTRE[1]
    socket = np.hypot(dx / 1.30, (dy - 1.0) / np.where(dy > 1.0, 0.95, 1.05))
    z = z - 8.8 * np.exp(-((socket / 13.5) ** 2.6)) - 2.6 * bump(np.hypot(x - 15.0, y - 20.0), 5.5)
    # crease between the fold under the brow and the upper lid
    lid = eyelid_shell(x, y, 1.7 + 0.5 * smooth_step(dy, 3.0, 8.0))
    lid = lid - 30.0 * np.maximum(
        np.hypot(dx / 1.02, dy / np.where(dy > 0, 0.86, 0.80)) / 15.2 - 1.0, 0.0
    )
    z = smooth_max(z, lid, 2.4)
    crease = np.abs(dy - (9.6 - 0.022 * dx * dx))
    return z - 1.1 * bump(crease, 1.2) * smooth_step(np.abs(dx), 16.0, 9.0)


def _nose(x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    ridge_z, half_width = _nose_curve()(np.clip(y, -35.0, 36.0)).T
    window = smooth_step(y, 38.0, 22.0) * smooth_step(y, -33.0, -25.0)
    profile = np.exp(-((np.abs(x) / (1.42 * half_width)) ** 2.1))
    z = z + window * np.maximum(ridge_z - z, 0.0) * profile
    z = smooth_max(z, _dome(x, y, (0.0, -16.6, 58.5), (9.4, 8.8, 13.2)), 4.0)
    z = smooth_max(z, _dome(x, y, (12.2, -18.8, 50.0), (6.4, 7.0, 10.0)), 3.2)
    z = smooth_max(z, _dome(x, y, (0.0, -23.0, 55.0), (3.4, 5.0, 7.5)), 2.0)  # columella
    nostril = bump(np.hypot((x - 6.9) / 1.25, y + 24.0), 1.9)
    alar_groove = bump(np.abs(np.hypot((x - 12.0), (y + 18.0) / 1.05) - 8.6), 1.3) * smooth_step(
        x, 12.0, 16.0
    )
    return z - 5.5 * nostril - 1.3 * alar_groove


def _lips(x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    line, top, low = mouth_line(x), upper_border(x), lower_border(x)
    t = np.abs(x) / MOUTH_HALF_WIDTH
    fade = np.sqrt(np.clip(1.0 - t**2.2, 0.0, 1.0))
    u = (y - line) / np.maximum(top - line, 1.2)
    v = (line - y) / np.maximum(line - low, 1.2)
    # heights over the skin: rounded in the middle of the red, a step at its edge, deep at the line
    upper = np.interp(
        u, [0, 0.12, 0.3, 0.6, 0.85, 1.0, 1.25, 2.2], [-2.0, 0.1, 1.4, 1.9, 1.5, 1.0, 0.3, 0.0]
    )
    lower = np.interp(
        v, [0, 0.10, 0.25, 0.5, 0.8, 1.0, 1.3, 2.0], [-2.0, 0.3, 1.9, 2.5, 1.7, 0.5, -0.4, 0.0]
    )
    relief = np.where(y >= line, upper, lower) * fade
    corner = bump(np.hypot(x - MOUTH_HALF_WIDTH - 1.5, (y - line) * 0.8), 5.0)
    return z + relief - 2.2 * corner
