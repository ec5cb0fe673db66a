"""Parts of the procedural head that no ray from inside can see: ears, lids, mouth, eyeballs.

Rings are (n, 3) arrays in millimetres, left side (x > 0); :mod:`topology` glues them to the skin.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from ml.flame.procedural.surface import (
    EYE_CENTRE,
    EYE_RADIUS,
    MOUTH_HALF_WIDTH,
    FloatArray,
    brow_curve,
    bump,
    eye_opening,
    eyelid_shell,
    front_points,
    lower_border,
    mouth_line,
    sculpt,
    side_points,
    smooth_step,
    upper_border,
)

NUM_EYE = 24
NUM_EAR = 30
NUM_LIP = 9
"""Columns of the half mouth from the midline to just before the corner."""
NUM_BALL_RINGS = 17
NUM_BALL_COLUMNS = 32


# ------------------------------------------------------------------ eyes
def eye_angles() -> FloatArray:
    """Return angles of the ring around the eye, rad."""
    return np.linspace(0.0, 2.0 * np.pi, NUM_EYE, endpoint=False)


def eyelid_rings() -> dict[str, FloatArray]:
    """Return rings of the left eyelids from the skin to the hidden socket, mm."""
    outline = eye_opening(eye_angles())
    centre = np.array([EYE_CENTRE[0] + 0.2, EYE_CENTRE[1]])
    away = outline - centre
    away = away / np.linalg.norm(away, axis=1, keepdims=True)

    def ring(offset: float, thickness: float) -> FloatArray:
        xy = outline + offset * away
        return np.column_stack([xy, eyelid_shell(xy[:, 0], xy[:, 1], thickness)])

    rim = ring(0.0, 1.25)
    inner = ring(-0.1, 0.35)
    hidden = ring(3.0, 0.3)
    hidden[:, 2] -= 2.0
    return {"eye_rim": rim, "eye_inner": inner, "eye_hidden": hidden}


def eyelid_margin_xy(distance: float = 1.5) -> FloatArray:
    """Return frontal coordinates (n, 2) of a skin ring at a distance outside the rim, mm."""
    outline = eye_opening(eye_angles())
    away = outline - np.array([EYE_CENTRE[0] + 0.2, EYE_CENTRE[1]])
    return outline + distance * away / np.linalg.norm(away, axis=1, keepdims=True)


def brow_rows() -> dict[str, FloatArray]:
    """Return frontal coordinates (n, 2) of rows along the left eyebrow, two in it, two outside."""
    t = np.linspace(0.03, 0.94, 13)
    x, y, half = brow_curve(t)
    levels = {"brow_under": -1.0, "brow_lower": -0.55, "brow_upper": 0.55, "brow_over": 1.0}
    rows = {}
    for name, level in levels.items():
        outside = 0.9 * np.sign(level) * (abs(level) == 1.0)
        rows[name] = np.column_stack([x, y + level * half + outside])
    return rows


def socket_centre() -> FloatArray:
    """Return the point that closes the eye socket behind the eyeball, mm."""
    return EYE_CENTRE + np.array([0.0, 0.0, -EYE_RADIUS - 3.0])


def eyeball() -> tuple[FloatArray, FloatArray, np.ndarray]:
    """Return the left eyeball as rings around the optical axis, closed behind.

    Returns:
        (545, 3) points in mm; (545,) angle from the optical axis in rad; (1086, 3) int faces.
    """
    front = np.deg2rad([3.5, 7.0, 9.3, 10.3, 15.0, 20.0, 24.6, 25.8, 28.0, 34.0])
    polar = np.concatenate(
        [front, np.deg2rad(np.linspace(44.0, 171.0, NUM_BALL_RINGS - len(front)))]
    )
    around = (np.arange(NUM_BALL_COLUMNS) + 0.5) * (2.0 * np.pi / NUM_BALL_COLUMNS)
    radius = EYE_RADIUS + 0.75 * np.maximum(1.0 - (polar / np.deg2rad(27.0)) ** 2, 0.0)
    ring = np.stack(
        [
            np.outer(radius * np.sin(polar), np.cos(around)),
            np.outer(radius * np.sin(polar), np.sin(around)),
            np.repeat((radius * np.cos(polar))[:, None], NUM_BALL_COLUMNS, axis=1),
        ],
        axis=-1,
    ).reshape(-1, 3)
    points = np.concatenate([[[0.0, 0.0, EYE_RADIUS + 0.75]], ring]) + EYE_CENTRE
    angle = np.concatenate([[0.0], np.repeat(polar, NUM_BALL_COLUMNS)])
    faces = []
    n = NUM_BALL_COLUMNS
    for i in range(n):
        faces.append((0, 1 + i, 1 + (i + 1) % n))
    for r in range(NUM_BALL_RINGS - 1):
        a, b = 1 + r * n, 1 + (r + 1) * n
        for i in range(n):
            j = (i + 1) % n
            faces.append((a + i, b + i, b + j))
            faces.append((a + i, b + j, a + j))
    last = 1 + (NUM_BALL_RINGS - 1) * n
    for i in range(1, n - 1):
        faces.append((last, last + i + 1, last + i))
    return points, angle, np.array(faces, dtype=np.int64)


# ------------------------------------------------------------------ mouth
def lip_columns() -> FloatArray:
    """Return X of the columns of the half mouth, from the midline (0) outwards, mm."""
    t = np.arange(NUM_LIP) / NUM_LIP
    return MOUTH_HALF_WIDTH * (1.06 * t - 0.06 * t**3)


def lip_xy(upper: bool, level: float) -> FloatArray:
    """Return frontal coordinates of a row of the lips, midline first, without the corner.

    Args:
        upper: upper or lower lip.
        level: 0 at the line between the lips, 1 at the edge of the red, above 1 beyond it.

    Returns:
        (NUM_LIP, 2) mm.
    """
    x = lip_columns()
    edge = upper_border(x) if upper else lower_border(x)
    line = mouth_line(x)
    return np.column_stack([x, line + level * (edge - line)])


def lip_surround_xy(upper: bool) -> FloatArray:
    """Return frontal coordinates (n, 2) of a row in the skin along a lip, to its corner, mm."""
    xy = lip_xy(upper, 1.0)
    xy[:, 1] += 1.5 if upper else -1.5
    end = [
        MOUTH_HALF_WIDTH - 0.2,
        mouth_line(np.array([MOUTH_HALF_WIDTH]))[0] + (1.7 if upper else -1.7),
    ]
    return np.concatenate([xy, [end]])


def mouth_rings() -> dict[str, FloatArray]:
    """Return rings of the half mouth cavity, from the upper midline to the lower one.

    The first ring is the line between the lips; then inner lips, gums, edges of the teeth, palate
    and floor. Upper and lower half close the mouth at rest and part with the jaw.

    Returns:
        name -> (2 * NUM_LIP + 1, 3) mm.
    """
    gap = 0.06
    upper, lower = lip_xy(True, 0.0), lip_xy(False, 0.0)
    corner = np.array([[MOUTH_HALF_WIDTH, mouth_line(np.array([MOUTH_HALF_WIDTH]))[0]]])
    lift = np.array([0.0, gap])
    xy = np.concatenate([upper + lift, corner, lower[::-1] - lift])
    line = sculpt(front_points(xy[:, 0], xy[:, 1]))
    sign = np.concatenate([np.ones(NUM_LIP), [0.0], -np.ones(NUM_LIP)])
    shrink = np.abs(sign)

    def ring(
        scale: float, up: tuple[float, float], back: tuple[float, float], arch: float
    ) -> FloatArray:
        out = line.copy()
        out[:, 0] *= scale
        out[:, 1] += np.where(sign > 0, up[0], np.where(sign < 0, up[1], 0.0))
        out[:, 2] -= np.where(
            sign > 0, back[0], np.where(sign < 0, back[1], 0.5 * (back[0] + back[1]))
        )
        # teeth are on an arch that is rounder than the lips
        out[:, 2] -= arch * (out[:, 0] / MOUTH_HALF_WIDTH) ** 2 * shrink
        return out

    return {
        "mouth_line": line,
        "mouth_inner": ring(0.985, (0.9, -0.9), (2.6, 2.6), 0.0),
        "mouth_gum": ring(0.94, (8.0, -7.5), (5.5, 5.5), 2.0),
        "mouth_teeth": ring(0.92, (-1.0, 0.6), (5.2, 7.0), 3.0),
        "mouth_palate": ring(0.82, (6.0, -5.0), (15.0, 16.0), 2.0),
        "mouth_throat": ring(0.55, (9.0, -8.0), (36.0, 36.0), 0.0),
    }


# ------------------------------------------------------------------ ears
_EAR_CENTRE = np.array([-3.5, -46.0])  # y, z of the ear canal on the side of the head
_EAR_TILT = np.deg2rad(13.0)


def _ear_plane(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return the side coordinates (y, z) of ear coordinates u (backwards) and v (up), mm."""
    c, s = np.cos(_EAR_TILT), np.sin(_EAR_TILT)
    back, up = u * c + v * s, -u * s + v * c
    return np.column_stack([_EAR_CENTRE[0] + up, _EAR_CENTRE[1] - back])


def ear_angles() -> FloatArray:
    """Return angles of the columns of the ear, rad.

    0 behind, pi/2 up, pi in front, 3 pi/2 at the lobe.
    """
    return np.linspace(0.0, 2.0 * np.pi, NUM_EAR, endpoint=False)


def _periodic(knots: list[tuple[float, float]], angle: FloatArray) -> FloatArray:
    """Smooth closed curve through (degrees, value) knots."""
    degrees, values = np.array(knots).T
    spline = CubicSpline(
        np.append(degrees, degrees[0] + 360.0), np.append(values, values[0]), bc_type="periodic"
    )
    return spline((np.rad2deg(angle) - degrees[0]) % 360.0 + degrees[0])


def ear_rings() -> list[FloatArray]:
    """Return rings of the left ear from its foot on the head over the helix to the ear canal.

    Returns:
        list of (NUM_EAR, 3) mm; the first ring is on the base surface.
    """
    angle = ear_angles()
    outline = _periodic(
        [(0, 23.5), (30, 28.0), (60, 33.0), (90, 34.5), (115, 31.5), (140, 22.5), (165, 14.0),
         (190, 11.5), (215, 13.5), (240, 21.5), (262, 29.0), (280, 29.5), (300, 26.0),
         (330, 22.5)], angle)  # fmt: skip
    foot = _periodic(
        [(0, 9.0), (45, 13.0), (90, 23.0), (125, 23.0), (150, 18.0), (180, 13.5), (215, 14.5),
         (245, 22.0),
         (270, 22.0), (300, 14.5), (330, 9.5)], angle)  # fmt: skip
    height = _periodic(
        [(0, 18.0), (30, 17.0), (60, 12.5), (82, 8.0), (105, 5.6), (140, 5.0), (170, 4.6),
         (200, 5.0), (225, 4.2),
         (250, 4.0), (275, 5.0), (300, 8.5), (330, 14.5)], angle)  # fmt: skip
    degrees = np.rad2deg(angle)
    # how much of a free, folded rim there is: none in front and at the lobe
    rim = smooth_step(np.abs((degrees - 62.0 + 180.0) % 360.0 - 180.0), 112.0, 78.0)
    lobe = bump((degrees - 272.0 + 180.0) % 360.0 - 180.0, 22.0)
    tragus = bump((degrees - 192.0 + 180.0) % 360.0 - 180.0, 17.0)
    antitragus = bump((degrees - 262.0 + 180.0) % 360.0 - 180.0, 15.0)

    def mix(with_rim: float, without: float, at_lobe: float) -> FloatArray:
        value = with_rim * rim + without * (1.0 - rim)
        return value + (at_lobe - value) * lobe

    # (radius by the outline, height by the rim height, both fractions): rim, front, lobe
    rows = [
        ((0.66, 1.03, 0.92), (0.30, 0.10, 0.35)),
        ((0.90, 1.00, 0.98), (0.66, 0.25, 0.62)),
        ((0.99, 0.97, 1.00), (0.86, 0.50, 0.85)),
        ((1.00, 0.94, 0.97), (1.00, 0.78, 1.00)),
        ((0.955, 0.90, 0.92), (1.06, 0.95, 1.08)),
        ((0.895, 0.86, 0.85), (1.00, 1.00, 1.08)),
        ((0.845, 0.81, 0.77), (0.82, 1.00, 1.04)),
        ((0.765, 0.75, 0.69), (0.76, 0.98, 1.00)),
        ((0.675, 0.69, 0.61), (0.86, 0.93, 0.96)),
        ((0.590, 0.62, 0.53), (0.84, 0.85, 0.90)),
        ((0.500, 0.53, 0.45), (0.52, 0.55, 0.55)),
        ((0.400, 0.42, 0.37), (0.18, 0.12, 0.18)),
        ((0.200, 0.22, 0.20), (0.06, 0.00, 0.06)),
    ]
    yz = _ear_plane(foot * np.cos(angle), foot * np.sin(angle))
    base = side_points(yz[:, 0], yz[:, 1])
    rings = [base]
    for row, (radius_mix, height_mix) in enumerate(rows):
        radius = outline * mix(*radius_mix)
        # behind the rim the ear is drawn in to its foot
        if row == 0:
            radius = foot + (radius - foot) * 0.55 * np.maximum(rim, lobe)
        lift = height * mix(*height_mix)
        if 4 <= row <= 9:
            lift = (
                lift
                + tragus * 3.6 * bump(np.array(row - 6.5), 1.7)
                + antitragus * 1.8 * bump(np.array(row - 8.5), 1.0)
            )
            radius = radius - tragus * 2.0 * smooth_step(np.array(float(row)), 4.0, 8.0)
        yz = _ear_plane(radius * np.cos(angle), radius * np.sin(angle))
        # heights are above a plane under the ear; only the foot follows the curved side of the head
        plane = min(row / 2.0, 1.0)
        outward = (
            plane * _ear_ground(yz) + (1.0 - plane) * side_points(yz[:, 0], yz[:, 1])[:, 0] + lift
        )
        rings.append(np.column_stack([outward, yz]))
    return rings


def _ear_ground(yz: FloatArray) -> FloatArray:
    """Return x of the side of the head under the ear, mm: a plane through four points of it."""
    probe = np.array([[22.0, -46.0], [-22.0, -44.0], [0.0, -36.0], [0.0, -54.0]])
    x = side_points(probe[:, 0], probe[:, 1])[:, 0]
    design = np.column_stack([probe, np.ones(4)])
    plane = np.linalg.lstsq(design, x, rcond=None)[0]
    # ears lean out less than the skull above them
    plane[0] *= 0.5
    return np.column_stack([yz, np.ones(len(yz))]) @ plane


def ear_canal() -> FloatArray:
    """Return the innermost point of the ear, mm."""
    yz = _EAR_CENTRE[None] + np.array([[0.0, 0.0]])
    return np.array([_ear_ground(yz)[0] - 3.0, yz[0, 0], yz[0, 1]])
