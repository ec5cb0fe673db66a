"""Soft masks and movements on the resting head, from which the bases are built."""

from __future__ import annotations

import numpy as np

from ml.flame.procedural import parts
from ml.flame.procedural.rig import jaw_weights
from ml.flame.procedural.surface import EYE_CENTRE, FloatArray, bump, smooth_step
from ml.flame.procedural.topology import Mesh

Field = tuple[str, FloatArray]
"""Name and (V, 3) displacement of one standard deviation, mm."""


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
        """Return (V,) bump around frontal coordinates, on the front of the head only."""
        distance = np.hypot((self.x - x) / stretch, self.y - y)
        return bump(distance, radius) * smooth_step(self.z, front - 12.0, front + 12.0)

    def ball(self, centre: tuple[float, float, float], radius: float) -> FloatArray:
        """Return (V,) bump around a place in space (mirrored to both sides)."""
        d = np.stack([self.x, self.y, self.z], 1) - np.array(centre)
        return bump(np.linalg.norm(d, axis=1), radius)

    def move(
        self, weight: FloatArray, sideways: float = 0.0, up: float = 0.0, forward: float = 0.0
    ) -> FloatArray:
        """Return (V, 3) displacement of a mask; sideways is away from the midline."""
        # tanh keeps the midline in place
        out = np.tanh(self.v[:, 0] / 6.0) * sideways
        return weight[:, None] * np.stack(
            [out, np.full_like(out, up), np.full_like(out, forward)], 1
        )

    def shift(
        self, weight: FloatArray, x: float = 0.0, y: float = 0.0, z: float = 0.0
    ) -> FloatArray:
        """Return (V, 3) displacement of a mask, the same on both sides."""
        return weight[:, None] * np.array([x, y, z])

    def scale(
        self,
        weight: FloatArray,
        centre: tuple[float, float, float],
        factors: tuple[float, float, float],
    ) -> FloatArray:
        """Return (V, 3) growth of a mask about a centre on both sides (its x counts outwards)."""
        d = np.stack([self.x - centre[0], self.y - centre[1], self.z - centre[2]], 1) * np.array(
            factors
        )
        d[:, 0] *= self.side
        return weight[:, None] * d

    def still_eyes(self, field: FloatArray) -> FloatArray:
        """Return a (V, 3) field that leaves the eyeballs where they are."""
        out = field.copy()
        for name in ("eyeball_left", "eyeball_right", "eye_end"):
            out[self.mesh.names[name]] = 0.0
        return out

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


def radial(a: Anatomy) -> FloatArray:
    """Return (V, 3) unit vectors away from the axis of neck and head, in the horizontal plane."""
    d = np.stack([a.v[:, 0], np.zeros(len(a.v)), a.v[:, 2] + 62.0], 1)
    return d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 25.0)


def eyelid_closing(a: Anatomy) -> dict[str, FloatArray]:
    """Return (V, 3) of one millimetre of lid closing, along the eyeball: 'upper' or 'lower'."""
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
