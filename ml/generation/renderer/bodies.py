"""Clothed bodies from COCO-17 joints: torso, neck, limbs, hands, feet and garments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ml.captions.scene import PersonLook
from ml.generation.renderer import parts
from ml.generation.renderer.blending import blend
from ml.generation.renderer.body_frame import BodyFrame, unit
from ml.generation.renderer.garments import Garments
from ml.generation.renderer.hands import hand_meshes
from ml.generation.renderer.meshes import (
    Mesh,
    cross,
    ellipsoid,
    join,
    make_mesh,
    smooth_path,
    sweep,
)


def body_meshes(
    frame: BodyFrame,
    garments: Garments,
    look: PersonLook,
    scale_px: float,
    rng: np.random.Generator,
    border_m: float = np.inf,
) -> list[Mesh]:
    """Return the clothed body without its head.

    Args:
        frame: joints and axes.
        garments: from `dress`.
        look: the caption's words.
        scale_px: pixels per metre, which decides how fine the meshes are.
        rng: draws wrinkles and the hands' turn.
        border_m: y of the image's lower border. Legs that are all below it are left out, which
            also leaves the shadow map to visible parts.

    Returns:
        Meshes, metres, image axes.
    """
    segments = int(np.clip(scale_px * 0.09, 10, 30)) // 2 * 2
    loft = _torso_loft(frame, garments)
    upper, lower, lower_loft = _torso(frame, garments, loft, segments)
    sleeves, arms, arm_cones = _arms(frame, garments, segments)
    reach = 0.06 * frame.size
    pieces = [
        blend(join([upper, *sleeves, *arms]), loft, arm_cones, reach, border_m),
        _neck(frame, garments, segments),
        *_collar(frame, garments, look, loft, segments),
    ]
    pieces += hand_meshes(frame, garments.skin, scale_px, rng)
    if _highest_leg_joint(frame) - 0.2 * frame.size < border_m:
        legs, leg_cones = _legs(frame, garments, segments)
        pieces.append(blend(join([lower, *legs]), lower_loft, leg_cones, reach, border_m))
        if scale_px > 25.0:
            pieces += _feet(frame, garments)
    if garments.skirt > 0.0:
        pieces.append(_skirt(frame, garments, segments, rng))
    return pieces


def _highest_leg_joint(frame: BodyFrame) -> float:
    """Return where the highest hip, knee or ankle is: its y, metres."""
    joints = (f"{side}_{name}" for side in ("left", "right") for name in ("hip", "knee", "ankle"))
    return min(float(frame.joint(joint)[1]) for joint in joints)


_LOFT_TOP, _LOFT_END = -0.15, 1.20
"""Start and end of the torso, as fractions of the way from neck to pelvis."""


def _torso_loft(frame: BodyFrame, garments: Garments) -> np.ndarray:
    """Return (S, 11) stations from the base of the neck to below the hips, clothes included."""
    shoulder = 0.5 * float(
        np.linalg.norm(frame.joint("left_shoulder") - frame.joint("right_shoulder"))
    )
    shoulder = max(shoulder, 0.10 * frame.size)
    hip = 0.5 * float(np.linalg.norm(frame.joint("left_hip") - frame.joint("right_hip")))
    hip = max(hip, 0.07 * frame.size)
    size, build, her = frame.size, garments.build, garments.feminine
    waist = 0.80 - 0.11 * her
    # Heads, and so necks, are of one size in these metres, a child's too.
    neck = 0.060 * size**0.2
    # fraction of neck-to-pelvis, half width, half depth, shift to the front
    profile = np.array(
        [
            (-0.15, neck, neck, -0.010 * size),
            (-0.10, max(0.46 * shoulder, 1.1 * neck), 1.06 * neck, -0.012 * size),
            (-0.06, 0.58 * shoulder, 0.070 * size, -0.014 * size),
            (-0.02, 0.73 * shoulder, 0.078 * size, -0.010 * size),
            (0.03, 0.87 * shoulder, 0.090 * size, -0.006 * size),
            (0.10, 0.95 * shoulder, 0.101 * size, 0.000),
            (0.17, 0.95 * shoulder, 0.108 * size, 0.004),
            (0.27, 0.92 * shoulder, (0.116 + 0.014 * her) * size, 0.008 * size * (1 + her)),
            (0.45, 0.86 * shoulder, 0.110 * size, 0.004 * size),
            (0.68, waist * shoulder, 0.098 * size, 0.000),
            (0.85, 0.5 * (waist * shoulder + hip + 0.075 * size), 0.106 * size, 0.000),
            (1.00, hip + (0.078 + 0.012 * her) * size, 0.116 * size, -0.004 * size),
            (1.12, hip + 0.070 * size, 0.112 * size, -0.008 * size),
            (1.20, hip + 0.040 * size, 0.090 * size, -0.006 * size),
        ]
    )
    dense = np.linspace(_LOFT_TOP, _LOFT_END, 22)
    rows = np.stack([np.interp(dense, profile[:, 0], profile[:, k]) for k in range(1, 4)], -1)
    rows = _soften(rows)
    grow = np.where(dense < 0.1, 0.5 + 0.5 * build, build)
    cloth = garments.thickness * np.clip((dense - _LOFT_TOP) / 0.12, 0.35, 1.0)
    length = float(np.linalg.norm(frame.pelvis - frame.neck))
    loft = np.zeros((len(dense), 11))
    for i, t in enumerate(dense):
        fraction = float(np.clip(t, 0.0, 1.0))
        side = unit((1 - fraction) * frame.shoulder_side + fraction * frame.hip_side)
        front = cross(frame.down, side)
        loft[i, 0:3] = frame.neck + frame.down * t * length + front * rows[i, 2]
        loft[i, 3:6], loft[i, 6:9] = side, front
        loft[i, 9] = rows[i, 0] * grow[i] + cloth[i]
        loft[i, 10] = rows[i, 1] * grow[i] + cloth[i]
    return loft


def _torso(
    frame: BodyFrame, garments: Garments, loft: np.ndarray, segments: int
) -> tuple[Mesh, Mesh, np.ndarray]:
    """Return the top, the trousers' seat, and the loft of the latter."""
    ring = 2 * segments
    length = float(np.linalg.norm(frame.pelvis - frame.neck))
    along = np.linspace(_LOFT_TOP, _LOFT_END, len(loft))
    top = loft[: int((along <= garments.hem).sum())].copy()
    # A hem hangs free of the hips.
    flare = np.clip((along[: len(top)] - 0.72) / 0.25, 0.0, 1.0)
    top[:, 9:11] += (0.010 * frame.size * flare)[:, None]
    upper = sweep(
        top[:, 0:3], frame.chest_front, top[:, 9], top[:, 10], ring, garments.top, parts.BODY,
        origin=_LOFT_TOP * length, sides=(top[:, 3:6], top[:, 6:9]),
    )  # fmt: skip
    ahead = (upper.positions - np.repeat(top[:, 0:3], ring, axis=0)) @ frame.chest_front > 0
    upper.coords[:, 2] = ahead
    # Under the top, and clearly so: equal surfaces would flicker.
    seat = loft[int(np.searchsorted(along, 0.88)) :].copy()
    seat[:, 9:11] -= garments.thickness * 0.8 + 0.007
    lower = sweep(
        seat[:, 0:3], frame.hip_front, seat[:, 9], seat[:, 10], ring, garments.bottom, parts.BODY,
        sides=(seat[:, 3:6], seat[:, 6:9]), capped=True,
    )  # fmt: skip
    return upper, lower, seat


def _collar(
    frame: BodyFrame, garments: Garments, look: PersonLook, loft: np.ndarray, segments: int
) -> list[Mesh]:
    """Return the ring around the neck: rib, turned-down collar or hood, by garment."""
    up = unit(frame.neck_top - loft[1, 0:3])
    height, flare, thick = {
        "t-shirt": (0.012, 0.004, 0.006), "dress": (0.006, 0.004, 0.004),
        "tank top": (0.0, 0.0, 0.0), "sweater": (0.030, 0.006, 0.011),
        "shirt": (0.038, 0.014, 0.006), "jacket": (0.040, 0.022, 0.008),
        "coat": (0.055, 0.026, 0.010), "hoodie": (0.035, 0.035, 0.018),
    }[look.top]  # fmt: skip
    if height == 0.0:
        return []
    base, width, depth = loft[0, 0:3], loft[0, 9] + 0.002, loft[0, 10] + 0.002
    # A profile that rises along the neck and turns outward and down again.
    profile = np.array(
        [
            (-0.012, flare),
            (0.3 * height, 0.3 * flare),
            (height, 0.0),
            (height + 0.3 * thick, 0.6 * thick),
            (0.8 * height, 0.7 * flare + thick),
            (0.1 * height, 1.2 * flare + thick),
            (-0.015, 1.6 * flare + thick),
        ]
    )
    path = base + up * profile[:, :1] * frame.size
    ring = sweep(
        path, frame.chest_front, width + profile[:, 1] * frame.size,
        depth + profile[:, 1] * frame.size, 2 * segments, garments.collar, parts.BODY,
    )  # fmt: skip
    pieces = [_opened(ring, 2 * segments, _COLLAR_GAPS.get(look.top, 0.0))]
    if look.top == "hoodie":
        angle = np.linspace(-2.2, 2.2, 15)
        arc = (
            loft[1, 0:3]
            + np.sin(angle)[:, None] * loft[1, 3:6] * (width + 0.035)
            - np.cos(angle)[:, None] * loft[1, 6:9] * (depth + 0.025)
            - frame.down * 0.01
        )
        pieces.append(
            sweep(
                arc,
                -frame.down,
                0.030 - 0.016 * np.abs(angle) / 2.2,
                0.042 - 0.026 * np.abs(angle) / 2.2,
                segments,
                garments.collar,
                parts.BODY,
                capped=True,
            )
        )
    return pieces


_COLLAR_GAPS = {"shirt": 0.22, "jacket": 0.55, "coat": 0.5}
"""Half the angle at which a collar is open in front, radians."""


def _opened(collar: Mesh, segments: int, gap: float) -> Mesh:
    """Return a collar without the faces in front."""
    if gap == 0.0:
        return collar
    column = np.arange(len(collar.positions)) % segments
    angle = np.minimum(column, segments - column) * (2.0 * np.pi / segments)
    keep = angle[collar.faces].max(axis=1) > gap
    return replace(
        collar, faces=collar.faces[keep], materials=collar.materials[keep], parts=collar.parts[keep]
    )


def _neck(frame: BodyFrame, garments: Garments, segments: int) -> Mesh:
    base = frame.neck + frame.down * 0.035 - frame.chest_front * 0.012
    path = smooth_path(
        np.stack([base, 0.5 * (base + frame.neck_top) - frame.chest_front * 0.004, frame.neck_top]),
        7,
    )
    radius = np.interp(np.linspace(0, 1, 7), [0, 0.45, 1.0], [0.064, 0.055, 0.053])
    # Thinner than the head model's own neck, which covers it down to the collar.
    radius = radius * frame.size**0.2 * (0.86 + 0.08 * garments.build - 0.07 * garments.feminine)
    return sweep(
        path, frame.chest_front, radius, radius * 1.02, segments, garments.skin, parts.BODY
    )


def _arms(
    frame: BodyFrame, garments: Garments, segments: int
) -> tuple[list[Mesh], list[Mesh], np.ndarray]:
    sleeves: list[Mesh] = []
    arms: list[Mesh] = []
    cones: list[np.ndarray] = []
    size = frame.size * (0.5 + 0.5 * garments.build) * (1.0 - 0.1 * garments.feminine)
    for side in ("left", "right"):
        shoulder, elbow, wrist = (
            frame.joint(f"{side}_{j}") for j in ("shoulder", "elbow", "wrist")
        )
        # Lowered a little: the joint is below the shoulder's top by less than the arm's radius.
        shoulder = shoulder + 0.020 * size * frame.down
        inner = 0.5 * shoulder + 0.5 * frame.neck + 0.005 * size * frame.down
        path = smooth_path(np.stack([inner, shoulder, elbow, wrist]), 25, (0.48, 0.36))
        length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
        lead = np.linalg.norm(shoulder - inner) / max(length, 1e-6)
        t = np.linspace(0.0, 1.0, len(path))
        # fractions of shoulder-to-wrist; the lead-in is inside the torso
        fraction = (t - lead) / max(1.0 - lead, 1e-6)
        radius = size * np.interp(
            fraction, [-0.4, -0.1, 0.08, 0.25, 0.42, 0.5, 0.62, 0.8, 1.0],
            [0.036, 0.045, 0.050, 0.046, 0.041, 0.040, 0.041, 0.034, 0.027],
        )  # fmt: skip
        end = garments.sleeve
        if end > 0.0:
            covered = max(int(np.searchsorted(fraction, end)), 4)
            loose = garments.thickness * np.interp(
                fraction[:covered], [-0.3, 0.0, 1.0], [0.9, 1.0, 1.1]
            )
            if end < 0.6:
                loose = loose + 0.010 * np.clip(fraction[:covered] / end, 0, 1)
            around = radius[:covered] + loose
            sleeves.append(
                sweep(
                    path[:covered],
                    frame.chest_front,
                    around,
                    around,
                    segments,
                    garments.top,
                    parts.BODY,
                )
            )
        bare = max(int(np.searchsorted(fraction, end)) - 2, 0)
        if bare < len(path) - 1:
            arms.append(
                sweep(
                    path[bare:],
                    frame.chest_front,
                    radius[bare:],
                    radius[bare:] * 0.94,
                    segments,
                    garments.skin,
                    parts.BODY,
                )
            )
        cloth = garments.thickness if end > 0.0 else 0.0
        lower_cloth = garments.thickness if end > 0.6 else 0.0
        cones.append(
            np.array([*shoulder, *elbow, 0.050 * size + cloth, 0.040 * size + lower_cloth])
        )
        cones.append(
            np.array([*elbow, *wrist, 0.040 * size + lower_cloth, 0.027 * size + lower_cloth])
        )
    return sleeves, arms, np.stack(cones)


def _legs(frame: BodyFrame, garments: Garments, segments: int) -> tuple[list[Mesh], np.ndarray]:
    meshes: list[Mesh] = []
    cones: list[np.ndarray] = []
    size = frame.size * garments.build
    for side in ("left", "right"):
        hip, knee, ankle = (frame.joint(f"{side}_{j}") for j in ("hip", "knee", "ankle"))
        path = smooth_path(np.stack([hip, knee, ankle]), 15, 0.3)
        t = np.linspace(0.0, 1.0, len(path))
        radius = size * np.interp(
            t,
            [0, 0.15, 0.35, 0.5, 0.65, 0.85, 1.0],
            [0.088, 0.083, 0.068, 0.055, 0.054, 0.040, 0.036],
        )
        covered = int(np.searchsorted(t, garments.leg))
        if covered >= 2:
            around = radius[:covered] + garments.leg_loose * np.interp(
                t[:covered], [0, 0.5, 1.0], [0.5, 1.0, 1.6]
            )
            meshes.append(
                sweep(
                    path[:covered],
                    frame.hip_front,
                    around,
                    around,
                    segments,
                    garments.bottom,
                    parts.BODY,
                )
            )
        bare = max(covered - 2, 0)
        meshes.append(
            sweep(
                path[bare:],
                frame.hip_front,
                radius[bare:],
                radius[bare:],
                segments,
                garments.skin,
                parts.BODY,
            )
        )
        cones.append(np.array([*hip, *knee, 0.085 * size, 0.055 * size]))
    return meshes, np.stack(cones)


def _feet(frame: BodyFrame, garments: Garments) -> list[Mesh]:
    meshes = []
    for side in ("left", "right"):
        knee, ankle = frame.joint(f"{side}_knee"), frame.joint(f"{side}_ankle")
        shin = unit(ankle - knee)
        forward = frame.hip_front - shin * float(frame.hip_front @ shin)
        forward = unit(forward) if np.linalg.norm(forward) > 0.2 else frame.hip_front
        across = cross(shin, forward)
        centre = ankle + shin * 0.045 * frame.size + forward * 0.055 * frame.size
        axes = np.stack([across * 0.045, shin * 0.045, forward * 0.13]) * frame.size
        meshes.append(ellipsoid(centre, axes, 9, 12, garments.shoe, parts.BODY))
    return meshes


def _skirt(frame: BodyFrame, garments: Garments, segments: int, rng: np.random.Generator) -> Mesh:
    """Return skirt of a dress or coat, from the waist to `garments.skirt` of the thighs."""
    knees = 0.5 * (frame.joint("left_knee") + frame.joint("right_knee"))
    spread = 0.5 * float(np.linalg.norm(frame.joint("left_knee") - frame.joint("right_knee")))
    hip = 0.5 * float(np.linalg.norm(frame.joint("left_hip") - frame.joint("right_hip")))
    waist = frame.pelvis - frame.down * 0.14 * frame.size
    end = frame.pelvis + (knees - frame.pelvis) * garments.skirt
    path = smooth_path(np.stack([waist, frame.pelvis, end]), 9, 0.4)
    t = np.linspace(0.0, 1.0, len(path))
    grow = garments.build * frame.size
    bottom = max(spread * garments.skirt + 0.10 * grow, hip + 0.10 * grow) + rng.uniform(0.0, 0.08)
    width = np.interp(t, [0, 0.3, 1.0], [hip + 0.055 * grow, hip + 0.098 * grow, bottom])
    depth = np.interp(
        t, [0, 0.3, 1.0], [0.112 * grow, 0.132 * grow, 0.15 * grow + rng.uniform(0, 0.06)]
    )
    material = (
        garments.bottom if garments.top != garments.bottom and garments.leg == 0.0 else garments.top
    )
    skirt = sweep(path, frame.hip_front, width, depth, 2 * segments + 12, material, parts.BODY)
    angle = np.arctan2(*_ring_angle(2 * segments + 12))
    pleats = 0.5 + 0.5 * np.sin(np.tile(angle, len(path)) * rng.integers(7, 13) + rng.uniform(0, 6))
    wave = np.repeat(t, 2 * segments + 12) * 0.022 * pleats
    return make_mesh(
        skirt.positions + skirt.normals * wave[:, None], skirt.faces, material, parts.BODY,
        coords=skirt.coords, tangents=skirt.tangents,
        outward_from=np.repeat(path, 2 * segments + 12, axis=0),
    )  # fmt: skip


def _ring_angle(segments: int) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)
    return np.sin(angle), np.cos(angle)


def _soften(rows: np.ndarray) -> np.ndarray:
    padded = np.concatenate([rows[:1], rows, rows[-1:]])
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
