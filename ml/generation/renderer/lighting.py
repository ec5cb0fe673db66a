"""Lights of a scene, the key light's shadow map and ambient occlusion from the depth buffer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ml.generation.renderer.meshes import Mesh
from ml.imaging.rasterizer import Float32Array, rasterize

KEY, KEY_COLOUR, RIM, SKY, GROUND, RIM_COLOUR, FILL, FILL_COLOUR = range(8)
"""Rows of `LightRig.as_array`: unit directions towards the lights, and linear RGB."""


@dataclass(frozen=True)
class LightRig:
    """Directions point from the surface to the light (image axes), colours are linear RGB.

    Attributes:
        key: direction of the main light, which casts shadows.
        key_colour: its colour.
        rim: direction of a light behind the people.
        rim_colour: its colour.
        fill: direction of a soft light without shadow.
        fill_colour: its colour.
        sky: ambient light from above.
        ground: ambient light from below.
        softness: width of shadow edges, 0 hard to 1 soft.
    """

    key: np.ndarray
    key_colour: np.ndarray
    rim: np.ndarray
    rim_colour: np.ndarray
    fill: np.ndarray
    fill_colour: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    softness: float

    def as_array(self) -> Float32Array:
        """Return (8, 3) float32 for the shading kernel: the rows `KEY` to `FILL_COLOUR`."""
        rows = {
            KEY: _unit(self.key),
            KEY_COLOUR: self.key_colour,
            RIM: _unit(self.rim),
            SKY: self.sky,
            GROUND: self.ground,
            RIM_COLOUR: self.rim_colour,
            FILL: _unit(self.fill),
            FILL_COLOUR: self.fill_colour,
        }
        return np.stack([rows[row] for row in range(len(rows))]).astype(np.float32)


@dataclass(frozen=True)
class ShadowMap:
    """Depth seen from the key light.

    Attributes:
        depth: (S, S) float32 distance along the light, +inf where nothing is.
        basis: (3, 4) float32 maps a scene point (px) to column, row and distance.
        bias: distance within which a surface does not shadow itself.
        softness: radius of the filter, cells.
    """

    depth: Float32Array
    basis: Float32Array
    bias: float
    softness: float


@dataclass(frozen=True)
class _LightKind:
    key_colour: tuple[float, float, float]
    strength: tuple[float, float]
    elevation: tuple[float, float]
    azimuth: tuple[float, float]
    sky: tuple[float, float, float]
    ground: tuple[float, float, float]
    rim: float
    fill: float
    softness: tuple[float, float]


_KINDS: dict[str, _LightKind] = {
    "bright daylight": _LightKind(
        (1.0, 0.95, 0.86), (1.25, 1.8), (35, 65), (15, 70), (0.44, 0.50, 0.60), (0.22, 0.20, 0.17),
        0.15, 0.10, (0.1, 0.4),
    ),
    "overcast light": _LightKind(
        (0.95, 0.98, 1.0), (0.5, 0.8), (50, 80), (0, 60), (0.74, 0.77, 0.82), (0.26, 0.26, 0.26),
        0.05, 0.18, (0.9, 1.0),
    ),
    "golden hour light": _LightKind(
        (1.0, 0.72, 0.42), (1.3, 1.8), (8, 25), (30, 80), (0.34, 0.35, 0.44), (0.22, 0.17, 0.13),
        0.8, 0.12, (0.2, 0.5),
    ),
    "night light": _LightKind(
        (1.0, 0.80, 0.56), (0.7, 1.1), (30, 65), (20, 75), (0.10, 0.12, 0.19), (0.08, 0.07, 0.07),
        0.7, 0.10, (0.3, 0.7),
    ),
    "warm lamp light": _LightKind(
        (1.0, 0.78, 0.52), (1.1, 1.6), (25, 60), (20, 70), (0.28, 0.24, 0.19), (0.19, 0.15, 0.11),
        0.25, 0.14, (0.5, 0.9),
    ),
    "soft studio light": _LightKind(
        (1.0, 0.98, 0.95), (1.1, 1.5), (25, 50), (20, 55), (0.40, 0.40, 0.41), (0.24, 0.24, 0.24),
        0.5, 0.28, (0.7, 1.0),
    ),
    "backlight": _LightKind(
        (1.0, 0.93, 0.82), (1.2, 1.7), (20, 45), (115, 160), (0.46, 0.47, 0.50), (0.26, 0.24, 0.22),
        1.1, 0.26, (0.3, 0.7),
    ),
}  # fmt: skip


def make_rig(light: str, rng: np.random.Generator) -> LightRig:
    """Return lights for a word of the caption's vocabulary.

    Args:
        light: one of `ml.captions.scene.LIGHTS`.
        rng: draws direction, strength and softness.

    Returns:
        The rig.

    Raises:
        ValueError: the word is unknown.
    """
    if light not in _KINDS:
        raise ValueError(f"scene light: expected one of {sorted(_KINDS)}, got {light!r}")
    kind = _KINDS[light]
    elevation = np.deg2rad(rng.uniform(*kind.elevation))
    side = rng.choice([-1.0, 1.0])
    azimuth = side * np.deg2rad(rng.uniform(*kind.azimuth))
    key = _direction(azimuth, elevation)
    rim = _direction(-side * np.deg2rad(rng.uniform(130, 165)), np.deg2rad(rng.uniform(15, 45)))
    fill = _direction(-0.6 * azimuth, np.deg2rad(rng.uniform(0, 25)))
    colour = np.array(kind.key_colour) * rng.normal(1.0, 0.02, 3)
    sky = np.array(kind.sky) * rng.uniform(0.85, 1.15)
    return LightRig(
        key=key,
        key_colour=colour * rng.uniform(*kind.strength),
        rim=rim,
        rim_colour=colour * kind.rim * rng.uniform(0.4, 1.2),
        fill=fill,
        fill_colour=sky / max(sky.max(), 1e-6) * kind.fill * rng.uniform(0.7, 1.3),
        sky=sky,
        ground=np.array(kind.ground) * rng.uniform(0.85, 1.15),
        softness=float(rng.uniform(*kind.softness)),
    )


def cast_shadows(mesh: Mesh, rig: LightRig, size: int) -> ShadowMap:
    """Return the depth of the scene seen from the key light.

    Args:
        mesh: the scene, positions in pixels.
        rig: the lights.
        size: side of the map, cells.

    Returns:
        The shadow map; its cells are as large as the scene needs.
    """
    toward = _unit(rig.key)
    helper = np.array([0.0, 0.0, 1.0]) if abs(toward[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    right = _unit(np.cross(helper, toward))
    down = np.cross(toward, right)
    axes = np.stack([right, down, -toward])
    seen = mesh.positions.astype(np.float64) @ axes.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    scale = (size - 4) / max(float((high - low)[:2].max()), 1.0)
    basis = np.zeros((3, 4))
    basis[:, :3] = axes
    basis[:2] *= scale
    basis[:2, 3] = 2.0 - low[:2] * scale
    points = mesh.positions.astype(np.float64) @ basis[:, :3].T + basis[:, 3]
    _, _, depth = rasterize(points.astype(np.float32), mesh.faces, size, size)
    return ShadowMap(
        depth=depth,
        basis=basis.astype(np.float32),
        bias=2.2 / scale,
        softness=0.6 + 2.4 * rig.softness,
    )


def ambient_occlusion(depth: Float32Array, radius_px: float) -> Float32Array:
    """Return how open each pixel is to the light around it, from the depth of its neighbours.

    Args:
        depth: (H, W) float32, px, +inf where nothing is.
        radius_px: reach of the darkening.

    Returns:
        (H, W) float32, 1 open, smaller in creases and next to nearer things.
    """
    return _occlusion(depth, np.float32(max(radius_px, 1.5)))


@njit(cache=True, fastmath=False)
def _occlusion(depth, radius):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    out = np.ones((height, width), np.float32)
    golden = 2.399963
    for row in range(0, height, 2):
        for column in range(0, width, 2):
            z = depth[row, column]
            if not z < np.inf:
                # A neighbour of the cell may still be covered.
                z = min(
                    depth[min(row + 1, height - 1), column],
                    depth[row, min(column + 1, width - 1)],
                    depth[min(row + 1, height - 1), min(column + 1, width - 1)],
                )
                if not z < np.inf:
                    continue
            blocked = 0.0
            turn = 1.3 * ((row * 7 + column * 13) % 16)
            for tap in range(9):
                reach = radius * np.sqrt((tap + 0.5) / 9.0)
                angle = turn + golden * tap
                r = int(row + reach * np.sin(angle))
                c = int(column + reach * np.cos(angle))
                if r < 0 or c < 0 or r >= height or c >= width:
                    continue
                rise = z - depth[r, c]
                if rise > 0.12 * reach and rise < 4.0 * radius:
                    blocked += min(1.0, (rise / reach - 0.12) * 0.9)
            value = max(0.25, 1.0 - 0.95 * max(0.0, blocked / 9.0 - 0.06))
            for dr in range(2):
                for dc in range(2):
                    if row + dr < height and column + dc < width:
                        out[row + dr, column + dc] = value
    return out


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.linalg.norm(vector) + 1e-9)


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    """Return the unit vector of an azimuth and an elevation, radians, image axes.

    Azimuth 0 is the camera's side, positive to the image's right; elevation is from the horizon.
    """
    return np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.sin(elevation),
            -np.cos(azimuth) * np.cos(elevation),
        ]
    )
