"""Clothed people below the head: a posed body, garments as shells around it, skirts and collars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from ml.captions.scene import PersonLook
from ml.flame.open_head.body import BONES, POINTS, Body, build_bodies, shape_weights
from ml.generation.renderer import parts
from ml.generation.renderer.body_frame import BodyFrame, unit
from ml.generation.renderer.garments import Garments
from ml.generation.renderer.meshes import (
    Mesh,
    cross,
    cut,
    grid_faces,
    make_mesh,
    sweep,
)
from ml.generation.renderer.posing import PosedBody, between_sides, pose_body, rotate, turn_with
from ml.imaging.rasterizer import Float32Array, Int32Array, vertex_normals

_FINE_PX_PER_M = 110.0
"""Pixels per metre above which the finer mesh is drawn."""
_UNDER_M = 0.03
"""How far skin and trousers reach under what covers them."""
_FOOTLESS_PX_PER_M = 25.0
"""Pixels per metre below which a shoe is a spot."""


@dataclass(frozen=True)
class ClothedBody:
    """A person without a head.

    Attributes:
        pieces: meshes, metres, image axes.
        loop: (42, 3) the border at the neck, from the nape over the left side.
        loop_normals: (42, 3) normals of the skin there.
    """

    pieces: list[Mesh]
    loop: np.ndarray
    loop_normals: np.ndarray


def body_meshes(
    frame: BodyFrame,
    garments: Garments,
    look: PersonLook,
    scale_px: float,
    rng: np.random.Generator,
    border_m: float = np.inf,
) -> ClothedBody:
    """Return the clothed body without its head.

    Args:
        frame: joints and axes.
        garments: from `dress`.
        look: the caption's words.
        scale_px: pixels per metre, which decides how fine the meshes are.
        rng: draws muscles, the hands' turn and curl, and pleats.
        border_m: y of the image's lower border. Faces well below it are left out, which also
            leaves the shadow map to visible parts.

    Returns:
        The person.
    """
    body = build_bodies()[0 if scale_px > _FINE_PX_PER_M else 1]
    surface = _surface(body)
    mixture = shape_weights(
        garments.feminine,
        age=float(np.clip((frame.size - 0.6) / 0.3, 0.0, 1.0)),
        weight=float(np.clip((garments.build - 1.0) / 0.2, -0.8, 0.9)),
        muscle=float(rng.uniform(0.0, 0.35)) * (garments.build > 0.85) * (garments.build < 1.12),
    )
    posed = pose_body(body, mixture, frame, rng.normal(0.0, 0.5, 2), rng.uniform(0.0, 0.4, 2))
    normals = vertex_normals(posed.skin, body.faces)
    cloth = _shell(body, surface, posed)
    top, bottom, shoe = _cover(surface, garments)
    # Skin that clothes cover is left out, but for some way under their borders.
    bare = (np.maximum(np.maximum(top, bottom), shoe) < _UNDER_M)[body.faces].any(axis=1)
    pieces = [
        make_mesh(
            posed.skin, body.faces[bare], garments.skin, parts.BODY, coords=posed.rest[0],
            normals=normals,
        )
    ]  # fmt: skip
    reach = frame.size * np.clip((surface.trunk - 0.72) / 0.25, 0.0, 1.0) * ~surface.is_arm
    loose = garments.thickness * np.clip(surface.neck / 0.06, 0.35, 1.0) + 0.010 * reach
    if 0.0 < garments.sleeve < 0.6:
        loose = loose + 0.007 * np.clip(surface.arm / garments.sleeve, 0.0, 1.0) * surface.is_arm
    pieces.append(cloth.piece(top, loose, garments.top))
    tight = 0.004 + garments.leg_loose * np.interp(surface.leg, [0.05, 0.5, 1.0], [0.3, 1.0, 1.6])
    hidden_under_top = np.minimum(bottom, _UNDER_M - top)
    pieces.append(cloth.piece(hidden_under_top, tight, garments.bottom))
    if scale_px > _FOOTLESS_PX_PER_M:
        pieces.append(cloth.piece(shoe, np.full(len(shoe), 0.012), garments.shoe))
    pieces = [piece for piece in pieces if len(piece.faces)]
    pieces += _collar(frame, garments, look, posed.skin[body.loop], normals[body.loop])
    if garments.skirt > 0.0:
        pieces.append(_skirt(garments, surface, posed, rng))
    return ClothedBody(
        [_above(piece, border_m + 0.2 * frame.size) for piece in pieces],
        posed.skin[body.loop],
        normals[body.loop],
    )


def _above(mesh: Mesh, limit_m: float) -> Mesh:
    """Return the mesh without faces that are all below a height, y down."""
    if mesh.positions[:, 1].max() < limit_m:
        return mesh
    keep = (mesh.positions[:, 1] < limit_m)[mesh.faces].any(axis=1)
    return replace(
        mesh, faces=mesh.faces[keep], materials=mesh.materials[keep], parts=mesh.parts[keep]
    )


@dataclass(frozen=True)
class _Surface:
    """Where places of the body are, and coordinates of cloth on it.

    Attributes:
        arm: (V,) 0 at the shoulder, 0.5 at the elbow, 1 at the wrist.
        leg: (V,) 0 at the hip, 0.5 at the knee, 1 at the ankle.
        trunk: (V,) 0 at the shoulders, 1 at the hips, measured straight down.
        neck: (V,) m from the border at the neck.
        front: (V,) 1 in front of the trunk's middle, 0 behind, soft in between.
        aside: (V,) m from the middle.
        foot: (V,) m below the top of a shoe.
        is_arm: (V,) bool.
        is_leg: (V,) bool.
        source: (C,) vertex of each place on the cloth; at a seam several have one vertex.
        on_trunk: (C,) bool, belongs to the trunk's piece of cloth.
        coords: (C, 3) m around, m along, and 1 on the front of the trunk.
        tangents: (C, 3) unit vectors along, before the body is turned.
        faces: (F, 3) of places on the cloth, in the order of the body's faces.
    """

    arm: Float32Array
    leg: Float32Array
    trunk: Float32Array
    neck: Float32Array
    front: Float32Array
    aside: Float32Array
    foot: Float32Array
    is_arm: np.ndarray
    is_leg: np.ndarray
    source: Int32Array
    on_trunk: np.ndarray
    coords: Float32Array
    tangents: Float32Array
    faces: Int32Array


@dataclass(frozen=True)
class _Chart:
    """A piece of cloth: its radius, and of every vertex the angle, m along, front, direction."""

    radius: float
    angle: np.ndarray
    along: np.ndarray
    front: np.ndarray
    direction: np.ndarray


_ARM_M, _LEG_M, _TRUNK_M = 0.52, 0.80, 0.46
"""Lengths by which fractions become metres."""


@lru_cache(maxsize=2)
def _surface(body: Body) -> _Surface:
    """Measure a body once, on the mean of an average man and an average woman."""
    mixture = shape_weights(0.5, 1.0, 0.0, 0.0)
    points, lain = (
        np.tensordot(mixture, shapes.astype(np.float64), axes=1)
        for shapes in (body.shapes, body.smooth)
    )
    places = np.tensordot(mixture, body.points.astype(np.float64), axes=1)
    at = dict(zip(POINTS, places, strict=True))
    sleeve = body.share("upper_arm", "arm_twist", "forearm", "hand", "fingers", "finger_tips")
    is_arm, in_sleeve = sleeve > 0.5, sleeve > 0.8
    is_leg = body.share("thigh", "thigh_twist", "shin", "foot") > 0.5
    left = points[:, 0] > 0.0
    shoulder, hip = at["left_shoulder"][1], at["left_hip"][1]
    middle = np.array([0.0, 0.0, points[body.loop, 2].mean()])
    around = np.arctan2(lain[:, 0] / 0.17, (lain[:, 2] - middle[2]) / 0.12)
    front = np.clip((points[:, 2] - middle[2]) / 0.06 + 0.5, 0.0, 1.0)
    down = np.broadcast_to(np.array([0.0, -1.0, 0.0]), points.shape)
    charts = [_Chart(0.145, around, shoulder - lain[:, 1], front, down)]
    fractions = []
    for names, radius, length in (
        (("shoulder", "elbow", "wrist"), 0.046, _ARM_M), (("hip", "knee", "ankle"), 0.07, _LEG_M),
    ):  # fmt: skip
        sides = [
            _around(lain, [at[f"{side}_{name}"] for name in names], sign)
            for side, sign in (("left", 1.0), ("right", -1.0))
        ]
        fraction, turn, line = (
            np.where(left.reshape(-1, *[1] * (one.ndim - 1)), one, other)
            for one, other in zip(*sides, strict=True)
        )
        fractions.append(fraction)
        charts.append(_Chart(radius, turn, fraction * length, np.zeros(len(points)), line))
    arm, leg = fractions
    # A top hangs over the hips in one piece.
    limb = np.where(in_sleeve, 1, np.where(is_leg & (leg > 0.12), 2, 0))
    source, on_trunk, coords, tangents, faces = _unwrapped(body.faces, limb, charts)
    distance, _ = cKDTree(points[body.loop]).query(points)
    below_ankle = at["left_ankle"][1] + 0.012 - points[:, 1]
    return _Surface(
        arm=arm.astype(np.float32),
        leg=leg.astype(np.float32),
        trunk=((shoulder - lain[:, 1]) / (shoulder - hip)).astype(np.float32),
        neck=distance.astype(np.float32),
        front=front.astype(np.float32),
        aside=np.abs(points[:, 0]).astype(np.float32),
        foot=np.where(is_leg, below_ankle, -1.0).astype(np.float32),
        is_arm=is_arm,
        is_leg=is_leg,
        source=source,
        on_trunk=on_trunk,
        coords=coords,
        tangents=tangents,
        faces=faces,
    )


def _around(
    points: np.ndarray, joints: list[np.ndarray], sign: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fractions along a limb, angles around it with the seam inside, and its directions."""
    first, second = joints[1] - joints[0], joints[2] - joints[1]
    one = np.clip((points - joints[0]) @ first / (first @ first), -0.3, 1.0)
    two = np.clip((points - joints[1]) @ second / (second @ second), 0.0, 1.4)
    centre = joints[0] + one[:, None] * first + two[:, None] * second
    line = np.where(two[:, None] > 0.0, unit(second), unit(first))
    outward = np.array([sign, 0.0, 0.0]) - line * (sign * line[:, :1])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    offset = points - centre
    angle = np.arctan2((offset * cross(line, outward)).sum(axis=1), (offset * outward).sum(axis=1))
    return 0.5 * (one + two), angle, line


def _unwrapped(
    faces: np.ndarray, limb: np.ndarray, charts: list[_Chart]
) -> tuple[Int32Array, np.ndarray, Float32Array, Float32Array, Int32Array]:
    """Divide vertices at seams: between trunk and limbs, and where the way around closes.

    Args:
        faces: (F, 3) of the body.
        limb: (V,) number of the chart of a vertex.
        charts: the pieces of cloth.

    Returns:
        vertices (C,), whether of the trunk (C,), coordinates (C, 3), tangents (C, 3) and faces
        (F, 3) of the cloth.
    """
    chart = np.median(limb[faces], axis=1).astype(int)
    angles = np.stack([c.angle for c in charts])[chart[:, None], faces]
    behind = (np.ptp(angles, axis=1) > np.pi)[:, None] & (angles < 0.0)
    key = (faces * 3 + chart[:, None]) * 2 + behind
    unique, index = np.unique(key, return_inverse=True)
    source, of, behind = unique // 6, unique // 2 % 3, unique % 2
    coords, tangents = np.zeros((len(unique), 3)), np.zeros((len(unique), 3))
    for number, c in enumerate(charts):
        mine = of == number
        place = source[mine]
        around = c.radius * (c.angle[place] + 2.0 * np.pi * behind[mine])
        coords[mine] = np.stack([around, c.along[place], c.front[place]], axis=1)
        tangents[mine] = c.direction[place]
    return (
        source.astype(np.int32), of == 0, coords.astype(np.float32), tangents.astype(np.float32),
        index.reshape(-1, 3).astype(np.int32),
    )  # fmt: skip


def _cover(surface: _Surface, garments: Garments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (V,) metres inside the borders of top, trousers and shoes, negative outside."""
    # Lower, a top would cling to the inside of the thighs.
    hem = garments.hem - 0.05 * (garments.skirt == 0.0)
    top = (hem - surface.trunk) * _TRUNK_M
    if garments.sleeve > 0.0:
        top = np.where(surface.is_arm, (garments.sleeve - surface.arm) * _ARM_M, top)
    else:
        # Straps between a scooped neckline and armholes.
        scoop = np.clip(1.0 - (surface.aside / 0.10) ** 2, 0.0, 1.0) * (
            0.020 + 0.035 * surface.front
        )
        armhole = 0.140 + 0.45 * np.maximum(surface.trunk - 0.10, 0.0) - surface.aside
        armhole = np.where(surface.is_arm, np.minimum(armhole, 0.03 - surface.arm), armhole)
        top = np.minimum(np.minimum(top, surface.neck - 0.004 - scoop), armhole)
    waist = (surface.trunk - 0.80) * _TRUNK_M
    leg = (max(garments.leg, 0.1) - surface.leg) * _LEG_M
    bottom = np.where(surface.is_arm, -1.0, np.where(surface.is_leg, leg, waist))
    return top, bottom, surface.foot


@dataclass(frozen=True)
class _Shell:
    """What cloth is cut from: the body's surface without hollows."""

    surface: _Surface
    posed: PosedBody
    normals: Float32Array
    coords: Float32Array
    tangents: Float32Array

    def piece(self, inside: np.ndarray, offset: np.ndarray, material: int) -> Mesh:
        """Return the cloth where `inside` (V,) is positive, `offset` (V,) metres off the skin."""
        surface, posed = self.surface, self.posed
        source = surface.source
        # On bulges the smoothed surface is inside the body; cloth lies on the body there.
        below = ((posed.skin - posed.cloth) * self.normals).sum(axis=1)
        # In a shoe a toe would make a spike.
        most = np.where(surface.foot > _UNDER_M, 0.016, np.inf)
        out = (np.clip(below, 0.0, most) + offset).astype(np.float32)
        points = posed.cloth + self.normals * out[:, None]
        faces = surface.faces[(inside > 0.0)[source][surface.faces].any(axis=1)]
        whole = make_mesh(
            points[source], faces, material, parts.BODY, coords=self.coords,
            tangents=self.tangents, normals=self.normals[source],
        )  # fmt: skip
        return cut(whole, inside[source])


def _shell(body: Body, surface: _Surface, posed: PosedBody) -> _Shell:
    coords = surface.coords.copy()
    # Stripes are level on every body, whatever the mean one's shape.
    trunk = surface.on_trunk
    shoulder = between_sides(posed.points, "shoulder")
    coords[trunk, 1] = shoulder[1] - posed.rest[1, surface.source[trunk], 1]
    return _Shell(
        surface, posed, vertex_normals(posed.cloth, body.faces), coords,
        rotate(posed.turns[surface.source], surface.tangents),
    )  # fmt: skip


def _collar(
    frame: BodyFrame, garments: Garments, look: PersonLook, loop: np.ndarray, normals: np.ndarray
) -> list[Mesh]:
    """Return what is around the neck: rib, turned-down collar or hood, by garment."""
    height, flare, thick = {
        "t-shirt": (0.010, 0.002, 0.004), "dress": (0.006, 0.002, 0.003),
        "tank top": (0.0, 0.0, 0.0), "sweater": (0.030, 0.005, 0.009),
        "shirt": (0.036, 0.013, 0.004), "jacket": (0.042, 0.019, 0.007),
        "coat": (0.056, 0.023, 0.009), "hoodie": (0.035, 0.026, 0.014),
    }[look.top]  # fmt: skip
    if height == 0.0:
        return []
    centre = loop.mean(axis=0)
    up = unit(frame.neck_top - centre)
    away = loop - centre
    away = away - up * (away @ up)[:, None]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    # A profile that rises along the neck, turns over, and ends on the cloth of the shoulders:
    # metres up the neck, away from it, along the shoulders, off them.
    lift = 0.35 * garments.thickness
    profile = np.array(
        [
            (-0.004, 0.001, 0.0, 0.0),
            (0.5 * height, 0.3 * flare + 0.002, 0.0, lift),
            (height, 0.5 * flare + 0.002, 0.0, lift),
            (height + 0.3 * thick, 0.5 * flare + 0.6 * thick, 0.0, lift),
            (0.7 * height, 0.8 * flare + thick, 0.2 * flare, lift + 0.3 * thick),
            (0.1 * height, 0.4 * flare, 0.6 * flare + 0.005, lift + 0.9 * thick),
            (0.0, 0.0, 1.0 * flare + 0.013, 1.2 * lift + 0.6 * thick),
            (0.0, 0.0, 1.0 * flare + 0.014, 0.0),
        ]
    )
    outward = away - normals * (away * normals).sum(axis=1)[:, None]
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    rows = [
        loop + (up * a + away * b + outward * c + normals * d) * frame.size**0.5
        for a, b, c, d in profile
    ]
    columns = len(loop)
    around = np.arctan2(away @ frame.shoulder_side, away @ frame.chest_front) * 0.07
    coords = np.zeros((len(rows), columns, 3))
    coords[..., 0], coords[..., 1] = around, profile[:, :1]
    faces = grid_faces(len(rows), columns, closed=True)
    gap = np.abs(np.tile(around, len(rows)))[faces].min(axis=1)
    faces = faces[gap > _COLLAR_GAPS.get(look.top, -1.0) * 0.07]
    ring = make_mesh(
        np.concatenate(rows), faces, garments.collar, parts.BODY, coords=coords.reshape(-1, 3),
        tangents=np.broadcast_to(up, (len(rows) * columns, 3)), outward_from=centre,
    )  # fmt: skip
    return [ring, *([_hood(frame, garments, loop, away, up)] if look.top == "hoodie" else [])]


_COLLAR_GAPS = {"shirt": 0.22, "jacket": 0.55, "coat": 0.5}
"""Half the angle at which a collar is open in front, radians."""


def _hood(
    frame: BodyFrame, garments: Garments, loop: np.ndarray, away: np.ndarray, up: np.ndarray
) -> Mesh:
    """Return a hood that hangs down: a roll around the nape, thin at its ends at the throat."""
    half = len(loop) // 2 - 6
    order = np.arange(-half, half + 1)
    share = np.abs(order) / half
    arc = loop[order] + (away[order] * 0.030 + up * 0.004) * frame.size**0.5
    arc = arc + frame.down * (0.02 * (1.0 - share))[:, None] * frame.size
    return sweep(
        arc, -frame.down, (0.030 - 0.018 * share) * frame.size**0.5,
        (0.046 - 0.032 * share) * frame.size**0.5, 14, garments.collar, parts.BODY, capped=True,
    )  # fmt: skip


def _skirt(
    garments: Garments, surface: _Surface, posed: PosedBody, rng: np.random.Generator
) -> Mesh:
    """Return skirt of a dress or coat, from the waist to `garments.skirt` of the thighs.

    It is made around the body at rest, and turned with hips and thighs as the body is: the left
    half follows the left thigh.
    """
    height, knee = (between_sides(posed.points, name)[1] for name in ("hip", "knee"))
    thigh = float(height - knee)
    levels = np.linspace(0.30 * thigh, -garments.skirt * thigh, _SKIRT_ROWS)
    inner = posed.rest[0][~surface.is_arm] - [0.0, height, 0.0]
    centre, half = np.zeros((_SKIRT_ROWS, 3)), np.zeros((_SKIRT_ROWS, 2))
    for row, level in enumerate(levels):
        nearest = np.argpartition(np.abs(inner[:, 1] - level), _SKIRT_NEAR)[:_SKIRT_NEAR]
        near = inner[nearest][:, [0, 2]]
        low, high = near.min(axis=0), near.max(axis=0)
        middle, half[row] = 0.5 * (low + high), 0.5 * (high - low)
        # An ellipse through the corners would be too wide for a waist, where no thigh comes out.
        corners = np.linalg.norm((near - middle) / half[row], axis=1).max() - 1.0
        half[row] *= 1.0 + corners * min(0.3 * row, 1.0)
        centre[row] = middle[0], height + level, middle[1]
    t = np.linspace(0.0, 1.0, _SKIRT_ROWS)
    flare = np.array([rng.uniform(0.02, 0.09), rng.uniform(0.02, 0.07)])
    half = np.maximum.accumulate(half, axis=0) + garments.thickness + 0.008
    half += np.maximum(t - 0.3, 0.0)[:, None] * flare * 2.4 * thigh
    centre[:, 2] = np.minimum.accumulate(centre[:, 2])
    material = (
        garments.bottom if garments.top != garments.bottom and garments.leg == 0.0 else garments.top
    )
    skirt = sweep(
        centre,
        np.array([0.0, 0.0, 1.0]),
        half[:, 0],
        half[:, 1],
        _SKIRT_COLUMNS,
        material,
        parts.BODY,
    )
    angle = np.tile(np.linspace(0.0, 2.0 * np.pi, _SKIRT_COLUMNS, endpoint=False), _SKIRT_ROWS)
    pleats = 0.5 + 0.5 * np.sin(angle * rng.integers(7, 13) + rng.uniform(0, 6))
    rest = (
        skirt.positions + skirt.normals * (np.repeat(t, _SKIRT_COLUMNS) * 0.022 * pleats)[:, None]
    )
    below = np.clip((height + 0.05 - rest[:, 1]) / (0.35 * thigh), 0.0, 1.0)
    below = below * below * (3.0 - 2.0 * below)
    left = np.clip(0.5 + 1.2 * rest[:, 0] / np.repeat(half[:, 0], _SKIRT_COLUMNS), 0.0, 1.0)
    weights = np.zeros((len(rest), len(BONES)), np.float32)
    weights[:, BONES.index("hips")] = 1.0 - below
    weights[:, BONES.index("left_thigh")] = below * left
    weights[:, BONES.index("right_thigh")] = below * (1.0 - left)
    moved, turns = turn_with(weights, posed.bones, rest)
    middle, _ = turn_with(weights, posed.bones, np.repeat(centre, _SKIRT_COLUMNS, axis=0))
    return make_mesh(
        moved, skirt.faces, material, parts.BODY, coords=skirt.coords,
        tangents=rotate(turns, skirt.tangents), outward_from=middle,
    )  # fmt: skip


_SKIRT_ROWS, _SKIRT_COLUMNS = 10, 40
_SKIRT_NEAR = 24
"""Vertices of the body that a ring surrounds."""
