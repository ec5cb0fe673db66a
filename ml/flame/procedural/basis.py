"""Shape and expression bases of the procedural head: named controls first sculpted, then ordered by variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.flame.procedural import parts
from ml.flame.procedural.rig import jaw_weights, mouth_side
from ml.flame.procedural.surface import (
    EYE_CENTRE,
    FloatArray,
    bump,
    lower_border,
    smooth_step,
    upper_border,
)
from ml.flame.procedural.topology import Mesh

_LIVELINESS = 0.8
"""All named shape controls together must stay believable at random coefficients."""
_VIVACITY = 0.65
"""Likewise for expressions: random faces speak and smile, they do not grimace; 3 is a strong expression."""
NUM_SHAPE_SYMMETRIC = 220
NUM_SHAPE_ANTISYMMETRIC = 80
NUM_EXPRESSION_SYMMETRIC = 64
NUM_EXPRESSION_ANTISYMMETRIC = 36
_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Basis:
    """Components of one parity each.

    Attributes:
        directions: (V, 3, K) mm per unit coefficient.
        signs: (K,) +1 for symmetric components, -1 for antisymmetric ones: the mirror image of a
            head has the coefficients times these signs.
        names: (K,) what a component does.
    """

    directions: FloatArray
    signs: FloatArray
    names: tuple[str, ...]


class Anatomy:
    """Soft masks of the resting head; all take |x|, so that every mask is symmetric."""

    def __init__(self, mesh: Mesh) -> None:
        """Measure the mesh once.

        Args:
            mesh: the resting head.
        """
        self.mesh = mesh
        self.v = mesh.vertices_mm
        self.x = np.abs(self.v[:, 0])
        self.y, self.z = self.v[:, 1], self.v[:, 2]
        self.side = np.sign(self.v[:, 0])
        self.jaw = jaw_weights(mesh)
        self.upper, self.lower = mouth_side(mesh)
        self.ear = np.zeros(len(self.v))
        for name in mesh.names:
            if name.startswith("ear_"):
                self.ear[mesh.names[name]] = 1.0
        self.ear[mesh.names["ear_0"]] = 0.25
        self.head = smooth_step(self.y + 0.35 * (self.z + 70.0), -150.0, -90.0)
        self.left = smooth_step(self.v[:, 0], -9.0, 9.0)

    def at(
        self, x: float, y: float, radius: float, stretch: float = 1.0, front: float = -5.0
    ) -> FloatArray:
        """(V,) bump around frontal coordinates, on the front of the head only."""
        distance = np.hypot((self.x - x) / stretch, self.y - y)
        return bump(distance, radius) * smooth_step(self.z, front - 12.0, front + 12.0)

    def ball(self, centre: tuple[float, float, float], radius: float) -> FloatArray:
        """(V,) bump around a place in space (mirrored to both sides)."""
        d = np.stack([self.x, self.y, self.z], 1) - np.array(centre)
        return bump(np.linalg.norm(d, axis=1), radius)

    def move(
        self, weight: FloatArray, sideways: float = 0.0, up: float = 0.0, forward: float = 0.0
    ) -> FloatArray:
        """(V, 3) displacement of a mask; sideways is away from the midline."""
        # tanh keeps the midline in place
        out = np.tanh(self.v[:, 0] / 6.0) * sideways
        return weight[:, None] * np.stack(
            [out, np.full_like(out, up), np.full_like(out, forward)], 1
        )

    def shift(
        self, weight: FloatArray, x: float = 0.0, y: float = 0.0, z: float = 0.0
    ) -> FloatArray:
        """(V, 3) displacement of a mask, the same on both sides."""
        return weight[:, None] * np.array([x, y, z])

    def scale(
        self,
        weight: FloatArray,
        centre: tuple[float, float, float],
        factors: tuple[float, float, float],
    ) -> FloatArray:
        """(V, 3) growth of a mask about a centre on either side (x of the centre counts outwards)."""
        d = np.stack([self.x - centre[0], self.y - centre[1], self.z - centre[2]], 1) * np.array(
            factors
        )
        d[:, 0] *= self.side
        return weight[:, None] * d

    def rigid_eyes(self, field: FloatArray) -> FloatArray:
        """Let lids and eyeballs follow a (V, 3) field as one piece."""
        out = field.copy()
        for side, name in ((1.0, "left"), (-1.0, "right")):
            centre = EYE_CENTRE * [side, 1, 1]
            rim = (
                self.mesh.rows["eye_margin"]
                if side > 0
                else self.mesh.mirror[self.mesh.rows["eye_margin"]]
            )
            carried = field[rim].mean(axis=0)
            weight = np.exp(-((np.linalg.norm(self.v - centre, axis=1) / 19.5) ** 6)) * (
                self.v[:, 0] * side > 4.0
            )
            weight[self.mesh.names[f"eyeball_{name}"]] = 1.0
            out += weight[:, None] * (carried - out)
        return out


Field = tuple[str, FloatArray]


def _shape_controls(a: Anatomy) -> list[Field]:
    """Named symmetric displacements (V, 3), mm, of one standard deviation each."""
    v, x, y, z = a.v, a.x, a.y, a.z
    one = np.ones(len(v))
    face = smooth_step(z, -30.0, 20.0) * smooth_step(y, 70.0, 40.0) * smooth_step(y, -135.0, -100.0)
    lower = (
        smooth_step(y, 5.0, -85.0)
        * smooth_step(z, -60.0, -5.0)
        * smooth_step(y + 0.5 * z, -140.0, -100.0)
    )
    cranium = smooth_step(y, 15.0, 75.0)
    neck = smooth_step(y + 0.3 * z, -85.0, -125.0)
    nose = a.at(0, -8, 15.0, 0.95, 40.0) + 0.5 * a.at(0, 14, 9.0, 0.8, 30.0)
    tip = a.at(0, -16, 8.5, 1.1, 52.0)
    mouth = a.at(0, -47, 12.0, 2.0, 15.0)
    chin = a.at(0, -82, 13.0, 1.5, 5.0)
    brow = a.at(27, 34, 8.0, 2.6, 10.0) * smooth_step(x, 56.0, 44.0)
    cheekbone = a.ball((56.0, -2.0, 22.0), 21.0)
    gonion = a.ball((52.0, -66.0, -20.0), 24.0) * (1 - a.ear)
    cheek = a.ball((44.0, -38.0, 28.0), 20.0)
    eye = a.at(31, 18, 13.0, 1.3, 5.0)
    centre = (0.0, -5.0, -40.0)
    fat = (
        a.ball((48.0, -55.0, 5.0), 30.0) * 2.6
        + a.ball((0.0, -108.0, 12.0), 26.0) * 3.0
        + neck * 1.6
    )
    out = _radial(a) * fat[:, None]
    age = (
        a.move(cheek, -1.6, -1.2, -1.4) + a.move(a.at(32, -70, 9.0, 1.2), 1.2, -2.4, 0.6)
        + a.move(a.at(31, 28, 6.0, 1.8), 0, -1.4, 0.4) + a.move(a.at(20, -36, 7.0), 0, -0.8, -1.0)
        + a.move(mouth, 0, 0, -1.2) + a.move(tip, 0, -1.6, 0.6) + a.scale(a.ear, (0.0, -4.0, -46.0), (0.0, 0.05, 0.03))
    )  # fmt: skip
    male = (
        a.move(gonion, 2.4, -1.2, 0) + a.move(brow, 0, -0.5, 1.9) + a.move(chin, 0.9, -1.6, 1.6)
        + a.move(nose, 0.4, 0, 1.4) + a.move(neck, 0, 0, 0) + _radial(a) * (neck * 3.0)[:, None]
        + a.move(a.ball((0, -126, -12), 9.0), 0, 0, 2.0) - a.move(cheek, 0.6, 0, 0.8)
    )  # fmt: skip
    controls: list[Field] = [
        ("size", (v - np.array(centre)) * 0.028),
        ("width", a.scale(one, centre, (0.030, 0.0, 0.0))),
        ("height", a.scale(one, centre, (0.0, 0.026, 0.0))),
        ("depth", a.scale(one, centre, (0.0, 0.0, 0.024))),
        ("heaviness", out),
        ("strength of the features", male),
        ("age", age),
        ("crown height", a.shift(cranium, y=2.6)),
        (
            "back of the skull",
            a.shift(smooth_step(z, -70.0, -130.0) * smooth_step(y, -60.0, 20.0), z=-4.0),
        ),
        ("skull width", a.move(cranium * smooth_step(x, 20, 60), 2.4)),
        ("forehead slope", a.shift(a.at(0, 84, 24.0, 2.0, 0.0), z=-2.8)),
        ("forehead bulge", a.shift(a.at(0, 62, 15.0, 2.0, 20.0), z=2.0)),
        ("temples", a.move(a.ball((64, 42, 12), 18.0), 2.2)),
        ("face length", a.shift(lower, y=-4.0)),
        ("face width", a.move(face * smooth_step(x, 25, 60), 2.4)),
        ("midface length", a.shift(smooth_step(y, 8.0, -22.0) * face, y=-1.8)),
        ("jaw width", a.move(gonion, 3.6)),
        ("jaw height", a.shift(gonion, y=-3.4)),
        ("jaw forward", a.shift(lower * smooth_step(y, -45.0, -75.0), z=2.6)),
        ("chin forward", a.shift(chin, z=2.8)),
        ("chin length", a.shift(a.at(0, -92, 15.0, 1.8, 0.0), y=-3.2)),
        ("chin width", a.move(a.at(20, -84, 11.0, 1.0), 2.8)),
        ("chin cleft", a.shift(a.at(0, -83, 4.0, 0.7, 30.0), z=-0.9)),
        ("cheek bones", a.move(cheekbone, 2.4, 0.4, 1.6)),
        ("cheek fullness", a.move(cheek, 2.2, 0, 1.9)),
        ("apple of the cheek", a.move(a.at(36, -14, 10.0), 0, 0, 1.8)),
        ("nose length", a.shift(a.at(0, -14, 11.0, 1.2, 38.0), y=-2.6)),
        ("nose projection", a.shift(nose, z=2.6)),
        ("nose tip up", a.shift(tip, y=1.9, z=0.3)),
        ("nose tip bulb", a.scale(tip, (0.0, -16.0, 64.0), (0.12, 0.10, 0.08))),
        ("nose width", a.move(a.at(13, -18, 7.5, 1.0, 42.0), 2.0)),
        ("nose bridge width", a.move(a.at(8, 8, 10.0, 0.8, 36.0), 1.1)),
        ("nose bridge height", a.shift(a.at(0, 16, 9.0, 0.9, 36.0), z=2.0)),
        ("nose hump", a.shift(a.at(0, 3, 7.5, 0.8, 42.0), z=1.5)),
        ("nostril height", a.shift(a.at(13, -19, 5.5, 1.0, 42.0), y=1.1)),
        ("eye distance", a.move(eye, 1.7)),
        ("eye height", a.shift(eye, y=1.5)),
        ("eye depth", a.shift(eye, z=1.4)),
        ("brow ridge", a.shift(brow, z=1.8)),
        ("brow height", a.shift(brow, y=1.7)),
        ("mouth width", a.move(a.at(24, -47, 9.0, 1.2, 15.0), 2.4)),
        ("mouth height", a.shift(mouth, y=1.7)),
        ("mouth forward", a.shift(a.at(0, -46, 14.0, 1.5, 15.0), z=1.9)),
        ("philtrum length", a.shift(a.at(0, -40, 6.0, 3.0, 25.0), y=-1.0)),
        ("muzzle", a.shift(a.at(0, -36, 10.0, 1.7, 20.0), z=1.5)),
        ("ear size", a.scale(a.ear, (0.0, -4.0, -46.0), (0.0, 0.075, 0.06))),
        ("ear standing out", a.move(a.ear * smooth_step(z, -38.0, -66.0), 3.4, 0.0, 0.8)),
        ("ear height", a.shift(a.ear, y=2.0)),
        ("ear tilt", a.shift(a.ear * (y + 4.0) / 30.0, z=-1.8)),
        ("ear lobe", a.shift(a.ear * smooth_step(y, -18.0, -32.0), y=-2.2)),
        ("ear top", a.shift(a.ear * smooth_step(y, 10.0, 26.0), y=1.8, z=-0.6)),
        ("neck width", _radial(a) * (neck * 3.4)[:, None]),
        ("neck forward", a.shift(neck, z=3.2)),
        ("larynx", a.shift(a.ball((0, -126, -12), 9.0), z=1.6)),
        ("double chin", a.shift(a.ball((0, -106, 14), 16.0), y=-3.4, z=0.6)),
        ("nape", a.shift(a.ball((0, -85, -112), 30.0), z=-3.4)),
        (
            "shoulder slope",
            a.shift(smooth_step(x, 50.0, 105.0) * smooth_step(y, -140, -170), y=3.0),
        ),
    ]
    controls = [(name, a.rigid_eyes(field) * _LIVELINESS) for name, field in controls]
    # what changes the lids themselves must not be carried by the eyes
    lids = _lids(a)
    lip_up = (
        smooth_step(upper_border(x) + 2.0 - y, -1.5, 2.0)
        * a.at(0, -44, 7.0, 3.0, 25.0)
        * (1 - a.jaw)
    )
    lip_low = (
        smooth_step(y - lower_border(x) + 2.0, -1.5, 2.0) * a.at(0, -52, 7.0, 3.0, 25.0) * a.jaw
    )
    controls += [
        ("eye opening", lids["upper"] * -0.75 + lids["lower"] * -0.4),
        (
            "eye slant",
            a.shift(a.at(46, 19, 6.0, 1.0, 5.0), y=0.9)
            - a.shift(a.at(17, 18, 5.0, 1.0, 5.0), y=0.5),
        ),
        ("upper lip", a.shift(lip_up, y=0.9, z=1.2)),
        ("lower lip", a.shift(lip_low, y=-1.1, z=1.3)),
        ("hooded lids", a.shift(a.at(36, 29, 4.5, 2.2, 15.0), y=-1.3, z=0.8)),
    ]
    return controls


def _radial(a: Anatomy) -> FloatArray:
    """(V, 3) unit vectors away from the axis of neck and head, in the horizontal plane."""
    d = np.stack([a.v[:, 0], np.zeros(len(a.v)), a.v[:, 2] + 62.0], 1)
    return d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 25.0)


def _asymmetries(a: Anatomy) -> list[Field]:
    """Named antisymmetric displacements (V, 3), mm: D(mirror v) = -flip D(v)."""
    odd = np.tanh(a.v[:, 0] / 12.0)
    lower = (
        smooth_step(a.y, 0.0, -85.0)
        * smooth_step(a.z, -40.0, 10.0)
        * smooth_step(a.y + 0.5 * a.z, -140.0, -100.0)
    )
    nose = a.at(0, -10, 14.0, 1.0, 40.0)
    return [
        (name, a.rigid_eyes(field))
        for name, field in (
            ("chin to the side", a.shift(lower, x=1.2)),
            ("nose to the side", a.shift(nose, x=0.7)),
            ("mouth to the side", a.shift(a.at(0, -47, 11.0, 2.2, 15.0), x=1.0)),
            ("one eye higher", a.shift(odd * a.at(31, 20, 15.0, 1.3, 0.0), y=0.9)),
            ("one cheek fuller", a.shift(odd * a.ball((44, -30, 26), 22.0), z=1.2)),
            ("one ear higher", a.shift(odd * a.ear, y=1.4)),
            ("one ear further out", a.shift(np.abs(odd) * a.ear, x=1.2)),
            ("mouth aslant", a.shift(odd * a.at(20, -47, 9.0, 1.5, 15.0), y=0.6)),
            (
                "skull twisted",
                a.shift(odd * smooth_step(a.y, 0, 60) * smooth_step(a.z, -60, -120), z=1.8),
            ),
            ("one brow higher", a.shift(odd * a.at(30, 36, 8.0, 2.2, 10.0), y=0.8)),
        )
    ]


def _lids(a: Anatomy) -> dict[str, FloatArray]:
    """(V, 3) of one millimetre of lid closing, along the eyeball: 'upper' down, 'lower' up."""
    out = {}
    angle = parts.eye_angles()
    rows = ("eye_margin", "eye_rim", "eye_inner", "eye_hidden")
    for lid, sign, reach in (("upper", 1.0, 10.5), ("lower", -1.0, 8.0)):
        weight = np.zeros(len(a.v))
        dx, dy = a.x - EYE_CENTRE[0], (a.y - EYE_CENTRE[1]) * sign
        edge = np.where(sign > 0, 5.0, 4.0) * np.sqrt(np.clip(1.0 - (dx / 14.6) ** 2, 0.0, 1.0))
        off = np.maximum(dy - edge, 0.0)
        weight = (
            smooth_step(off, reach, 0.0)
            * np.clip(1.0 - (dx / 15.0) ** 2, 0.0, 1.0) ** 0.8
            * (dy > 0)
            * (a.z > 15.0)
        )
        for name in rows:
            ring = a.mesh.rows[name]
            value = np.clip(sign * np.sin(angle), 0.0, 1.0) ** 0.8
            weight[ring] = value
            weight[a.mesh.mirror[ring]] = value
        weight[a.mesh.names["eyeball_left"]] = weight[a.mesh.names["eyeball_right"]] = 0.0
        weight[a.mesh.names["eye_end"]] = 0.0
        # a small rotation about the horizontal axis of the eyeball
        arm_y, arm_z = a.y - EYE_CENTRE[1], a.z - EYE_CENTRE[2]
        length = np.maximum(np.hypot(arm_y, arm_z), 6.0)
        field = np.stack(
            [np.zeros(len(a.v)), -sign * arm_z / length, sign * arm_y / length + 0.16], 1
        )
        out[lid] = field * weight[:, None]
    return out


def _expression_controls(a: Anatomy) -> list[Field]:
    """Named displacements (V, 3), mm, symmetric; left and right halves are split off later."""
    x, y = a.x, a.y
    lids = _lids(a)
    mouth = a.at(0, -47, 13.0, 2.0, 15.0)
    corner = a.at(26, -47, 10.0, 1.0, 12.0)
    lower = a.jaw
    upper_lip = a.at(0, -41, 8.0, 2.6, 22.0) * (
        1 - np.where(a.at(0, -47, 16, 2.2) > 0.05, lower, 0)
    )
    lower_lip = a.at(0, -55, 8.5, 2.4, 20.0) * lower
    cheek = a.at(40, -14, 12.0, 1.1, 5.0)
    inner_brow = a.at(15, 38, 9.0, 1.2, 20.0)
    outer_brow = a.at(42, 38, 9.0, 1.3, 5.0)
    brow = a.at(28, 38, 9.5, 2.4, 5.0)
    red = np.maximum(a.at(0, -47, 6.5, 3.0, 25.0), 0)
    side = smooth_step(x, 6.0, 24.0)
    return [
        ("mouth open", a.shift(lower, y=-2.8, z=-0.8)),
        ("smile", a.move(corner, 2.6, 2.6, -1.6) + a.move(cheek, 0.6, 1.3, 1.0) + a.move(mouth * side, 1.2, 0.8, -1.0) + lids["lower"] * 0.35),
        ("blink", lids["upper"] * 1.9 + lids["lower"] * 0.25),
        ("brows up", a.shift(brow, y=2.6) + a.shift(a.at(20, 56, 12.0, 3.0), y=1.0) - lids["upper"] * 0.35),
        ("lips pursed", a.move(corner, -3.0, 0, 1.2) + a.shift(mouth, z=1.8)),
        ("frown", a.move(inner_brow, -1.4, -1.9, 0.7) + a.move(outer_brow, 0, -0.7, 0.2)),
        ("squint", lids["lower"] * 1.0 + lids["upper"] * 0.7 + a.move(cheek, 0, 1.1, 0.5) + a.shift(a.at(36, 30, 6.0, 1.8), y=-0.7)),
        ("corners down", a.move(corner, 0.6, -2.4, -0.3)),
        ("upper lip up", a.shift(upper_lip, y=1.7, z=0.5)),
        ("lower lip down", a.shift(lower_lip, y=-2.0, z=0.5)),
        ("mouth wide", a.move(corner, 2.8, 0.2, -1.2) + a.move(mouth * side, 1.4, 0, -0.8)),
        ("inner brows up", a.shift(inner_brow, y=2.2)),
        ("outer brows up", a.shift(outer_brow, y=2.0)),
        ("nose wrinkled", a.shift(a.at(11, -14, 8.0, 1.0, 35.0), y=1.3, z=0.4) + a.shift(a.at(9, 14, 6.0, 1.0, 30.0), y=-0.5, z=0.7)),
        ("cheeks blown", a.move(a.ball((42, -44, 28), 17.0), 3.0, 0, 1.6) * (1 - red)[:, None]),
        ("cheeks hollow", a.move(a.ball((42, -40, 26), 13.0), -2.0, 0, -0.8)),
        ("lips forward", a.shift(mouth, z=2.4)),
        ("lips pressed", a.shift(upper_lip, y=-0.8, z=-1.0) + a.shift(lower_lip, y=0.8, z=-1.1)),
        ("jaw forward", a.shift(lower * smooth_step(y, -30.0, -60.0), z=2.2)),
        ("chin up", a.shift(a.at(0, -70, 11.0, 1.5, 20.0) * lower, y=1.6, z=0.8)),
        ("nostrils wide", a.move(a.at(13.5, -20, 5.0, 1.0, 42.0), 1.3, 0.3, 0.0)),
        ("dimples", a.move(a.at(32, -46, 5.0, 1.0, 10.0), 0.6, 0, -1.3)),
        ("cheeks up", a.move(cheek, 0, 1.9, 0.8)),
        ("sneer", a.shift(a.at(12, -33, 8.0, 1.4, 30.0) * (1 - lower), y=1.4, z=0.3)),
        ("lips rolled in", a.shift(red, z=-1.5)),
        ("wide eyes", lids["upper"] * -0.9 + lids["lower"] * -0.5 + a.shift(brow, y=0.7)),
        ("ears back", a.shift(a.ear, y=0.5, z=-0.8)),
        ("neck tense", a.move(a.ball((30, -125, -25), 20.0), 1.0, 0, 1.2)),
    ]  # fmt: skip


def _waves(
    a: Anatomy, rng: np.random.Generator, count: int, length_mm: tuple[float, float], parity: float
) -> FloatArray:
    """Smooth random fields of one parity, (count, V, 3), root mean square about 1.

    Args:
        a: the anatomy.
        rng: source of the waves.
        count: how many fields.
        length_mm: longest and shortest wave length scale, from the first to the last field.
        parity: +1 symmetric, -1 antisymmetric.
    """
    fields = np.zeros((count, len(a.v), 3))
    lengths = np.geomspace(length_mm[0], length_mm[1], count)
    num_waves = 10
    for k in range(count):
        direction = rng.standard_normal((num_waves, 3)) / lengths[k]
        phase = rng.uniform(0.0, 2.0 * np.pi, num_waves)
        amplitude = rng.standard_normal((num_waves, 3)) * np.sqrt(2.0 / num_waves)
        here = np.cos(a.v @ direction.T + phase) @ amplitude
        there = (np.cos((a.v * _FLIP) @ direction.T + phase) @ amplitude) * _FLIP
        fields[k] = (here + parity * there) * np.sqrt(0.5)
    return fields


def _exact(field: FloatArray, a: Anatomy, parity: float) -> FloatArray:
    """Remove what rounding leaves of the other parity."""
    return 0.5 * (field + parity * field[..., a.mesh.mirror, :] * _FLIP)


def _principal(
    fields: list[Field], count: int, keep_first: int
) -> list[tuple[str, FloatArray, float]]:
    """Principal components of independent unit-variance controls, largest first.

    Args:
        fields: controls.
        count: components wanted.
        keep_first: how many controls give their names to components.

    Returns:
        (name, (V, 3) direction of one standard deviation, its size) triples.
    """
    table = np.stack([f.reshape(-1) for _, f in fields])
    gram = table @ table.T
    values, vectors = np.linalg.eigh(gram)
    order = np.argsort(-values)[:count]
    out = []
    for i in order:
        vector = vectors[:, i]
        strongest = int(np.argmax(np.abs(vector)))
        vector = vector * np.sign(vector[strongest])
        direction = vector @ table
        name = fields[strongest][0] if strongest < keep_first else "smooth field"
        out.append((name, direction.reshape(-1, 3), float(values[i])))
    return out


def shape_basis(mesh: Mesh, rng: np.random.Generator) -> Basis:
    """300 shape components: named controls and smooth random fields, ordered by variance.

    Args:
        mesh: the resting head.
        rng: source of the random fields.

    Returns:
        the basis.
    """
    a = Anatomy(mesh)
    parts_: list[tuple[str, FloatArray, float, float]] = []
    for parity, named, count in (
        (1.0, _shape_controls(a), NUM_SHAPE_SYMMETRIC),
        (-1.0, _asymmetries(a), NUM_SHAPE_ANTISYMMETRIC),
    ):
        num_waves = count - len(named) + 10
        waves = _waves(a, rng, num_waves, (45.0, 14.0), parity)
        size = np.geomspace(0.22, 0.04, num_waves) * (1.0 if parity > 0 else 0.45)
        calm = (1.0 - 0.7 * smooth_step(a.y, -110.0, -150.0))[:, None]
        every = named + [
            ("smooth field", a.rigid_eyes(w * calm) * s) for w, s in zip(waves, size, strict=True)
        ]
        every = [(name, _exact(field, a, parity)) for name, field in every]
        parts_ += [(n, d, s, parity) for n, d, s in _principal(every, count, len(named))]
    parts_.sort(key=lambda item: -item[2])
    return _basis(a, parts_)


def expression_basis(mesh: Mesh, rng: np.random.Generator) -> Basis:
    """100 expression components: named movements both sided and one-sided, then small random ones.

    The named ones stay as they are (not mixed by an eigenbasis): a coefficient means a movement.

    Args:
        mesh: the resting head.
        rng: source of the random movements.

    Returns:
        the basis.
    """
    a = Anatomy(mesh)
    symmetric, lopsided = [], []
    for name, field in _expression_controls(a):
        field = _exact(field * _VIVACITY, a, 1.0)
        symmetric.append((name, field))
        lopsided.append(
            (f"{name}, left more than right", field * (2.0 * a.left - 1.0)[:, None] * 0.45)
        )
    for name, field in (
        ("jaw to the left", a.shift(a.jaw, x=1.3)),
        ("mouth to the left", a.shift(a.at(0, -47, 12.0, 2.0, 15.0), x=1.2)),
    ):
        lopsided.append((name, field))
    mask = np.maximum.reduce(
        [a.at(0, -47, 15.0, 2.0, 12.0), 0.7 * a.at(28, 36, 10.0, 2.6, 5.0), 0.6 * a.at(36, -20, 16.0, 1.4, 0.0)]
    ) * (1 - a.ear)  # fmt: skip
    eyes = np.minimum(
        np.linalg.norm(a.v - EYE_CENTRE, axis=1), np.linalg.norm(a.v - EYE_CENTRE * _FLIP, axis=1)
    )
    mask = mask * smooth_step(eyes, 14.0, 24.0)
    items: list[tuple[str, FloatArray, float, float]] = []
    for parity, named, count in (
        (1.0, symmetric, NUM_EXPRESSION_SYMMETRIC),
        (-1.0, lopsided, NUM_EXPRESSION_ANTISYMMETRIC),
    ):
        num = count - len(named)
        waves = _waves(a, rng, num, (26.0, 11.0), parity)
        size = np.geomspace(0.5, 0.12, num) * (1.0 if parity > 0 else 0.5)
        extra = [
            ("small movement", w * s * mask[:, None]) for w, s in zip(waves, size, strict=True)
        ]
        every = [(n, _exact(f, a, parity)) for n, f in named + extra]
        items += [
            (n, f, -float(k) - (0.5 if parity > 0 else 0.0), parity)
            for k, (n, f) in enumerate(every)
        ]
    # named movements first, in their order: both-sided before one-sided
    named_items = [i for i in items if i[0] != "small movement" and i[3] > 0]
    named_items += [i for i in items if i[0] != "small movement" and i[3] < 0]
    rest = sorted(
        (i for i in items if i[0] == "small movement"), key=lambda i: -float((i[1] ** 2).sum())
    )
    return _basis(a, named_items + rest)


def _basis(a: Anatomy, items: list[tuple[str, FloatArray, float, float]]) -> Basis:
    directions = np.stack([d for _, d, _, _ in items], axis=-1)
    signs = np.array([p for _, _, _, p in items])
    return Basis(directions, signs, tuple(n for n, _, _, _ in items))
