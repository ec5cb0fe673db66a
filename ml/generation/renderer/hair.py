"""Hair and hats on a dome around the skull, and long hair below it.

A dome is a polar grid around a whorl: strands run along its meridians. Its cover value
(extras[0], metres) is positive where the surface exists; the renderer cuts it at 0 after adding
noise across the strands, which makes ragged edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ml.captions.scene import PersonLook
from ml.generation.renderer import materials as mat
from ml.generation.renderer import parts
from ml.generation.renderer.head_assets import SKULL_CENTRE, HeadAssets, hairline, sample_radius
from ml.generation.renderer.heads import HeadMaterials
from ml.generation.renderer.materials import MaterialTable
from ml.generation.renderer.meshes import Mesh, grid_faces, make_mesh, smooth_path, sweep
from ml.generation.renderer.noise import noise_points
from ml.generation.renderer.palette import cloth_colour
from ml.imaging.rasterizer import Float32Array


@dataclass(frozen=True)
class Headwear:
    """Hair, hat and hanging hair, in the template frame; `ragged` is drawn with cut edges."""

    ragged: list[Mesh]
    solid: list[Mesh]


@dataclass(frozen=True)
class _Dome:
    """Polar grid on the skull.

    Attributes:
        directions: (R, C, 3) unit vectors.
        skin: (R, C, 3) points on the deformed skin.
        rest: (R, C, 3) the same on the template, where hairlines are measured.
        azimuth: (C,) around the whorl.
        angle: (R,) from the whorl.
    """

    directions: np.ndarray
    skin: np.ndarray
    rest: np.ndarray
    azimuth: np.ndarray
    angle: np.ndarray


@dataclass(frozen=True)
class _Cut:
    """Shape of a haircut: thickness on top and at the sides, bumps, where it falls to."""

    whorl: tuple[float, float, float]
    top: tuple[float, float]
    side: tuple[float, float]
    lump: float
    lump_size: float
    falls_to: tuple[float, float] | None = None
    fringe: float = 0.0


_CUTS: dict[str, _Cut] = {
    "short": _Cut((0.1, 0.86, -0.5), (0.012, 0.024), (0.004, 0.009), 0.005, 60.0, fringe=0.35),
    "side part": _Cut((0.5, 0.80, 0.25), (0.014, 0.026), (0.005, 0.010), 0.004, 45.0, fringe=0.2),
    "curly": _Cut((0.0, 0.9, -0.4), (0.024, 0.040), (0.014, 0.026), 0.016, 95.0, fringe=0.4),
    "afro": _Cut((0.0, 0.95, -0.3), (0.045, 0.085), (0.040, 0.075), 0.010, 110.0),
    "bob": _Cut(
        (0.15, 0.95, -0.1), (0.014, 0.022), (0.010, 0.017), 0.003, 40.0, (-0.115, -0.07), 0.5
    ),
    "long": _Cut(
        (0.1, 0.97, -0.05), (0.012, 0.022), (0.009, 0.016), 0.003, 40.0, (-0.36, -0.19), 0.25
    ),
    "bun": _Cut((0.0, 0.55, -0.83), (0.007, 0.012), (0.005, 0.008), 0.002, 50.0),
    "ponytail": _Cut((0.0, 0.45, -0.89), (0.008, 0.013), (0.005, 0.008), 0.002, 50.0),
}


def headwear(
    assets: HeadAssets,
    radius: Float32Array,
    rest_radius: Float32Array,
    look: PersonLook,
    materials: HeadMaterials,
    gravity: np.ndarray,
    table: MaterialTable,
    rng: np.random.Generator,
) -> Headwear:
    """Return hair and hat of a person.

    Args:
        assets: of the head model.
        radius: (rows, columns) radius of this head's skull.
        rest_radius: the same of the template.
        look: the caption's words.
        materials: of the person's head.
        gravity: (3,) unit vector down, template frame; long hair follows it.
        table: receives the hat's cloth.
        rng: draws volumes, fringes and colours.

    Returns:
        Meshes in the template frame, metres.
    """
    ragged: list[Mesh] = []
    solid: list[Mesh] = []
    hat = look.hat
    if look.hair_style in _CUTS and hat != "headscarf":
        cut = _CUTS[look.hair_style]
        ragged.append(_hair_dome(radius, rest_radius, cut, look, materials, rng))
        if cut.falls_to is not None:
            ragged += _curtains(radius, cut, materials, gravity, rng)
        if look.hair_style == "bun" and hat in ("none", "cap"):
            ragged.append(_bun(radius, cut, materials, rng))
        if look.hair_style == "ponytail":
            ragged.append(_ponytail(radius, cut, materials, gravity, rng))
    if hat != "none":
        solid += _hat(radius, rest_radius, look, table, rng)
    return Headwear(ragged, solid)


def _dome(
    radius: Float32Array,
    rest_radius: Float32Array,
    whorl: np.ndarray,
    rows: int,
    columns: int,
    reach: float,
) -> _Dome:
    pole = whorl / np.linalg.norm(whorl)
    forward = np.array([0.0, 0.0, 1.0]) if abs(pole[2]) < 0.8 else np.array([0.0, 1.0, 0.0])
    first = forward - pole * float(forward @ pole)
    first /= np.linalg.norm(first)
    second = np.cross(pole, first)
    angle = np.linspace(0.02, reach, rows)
    azimuth = np.linspace(0.0, 2 * np.pi, columns, endpoint=False)
    directions = np.cos(angle)[:, None, None] * pole + np.sin(angle)[:, None, None] * (
        np.cos(azimuth)[None, :, None] * first + np.sin(azimuth)[None, :, None] * second
    )
    flat = directions.reshape(-1, 3)
    skin = SKULL_CENTRE + flat * sample_radius(radius, flat)[:, None]
    rest = SKULL_CENTRE + flat * sample_radius(rest_radius, flat)[:, None]
    shape = (rows, columns, 3)
    return _Dome(directions, skin.reshape(shape), rest.reshape(shape), azimuth, angle)


def _shell(
    dome: _Dome,
    thickness: np.ndarray,
    cover: np.ndarray,
    material: int,
    part: int,
    tips: np.ndarray | None = None,
) -> Mesh:
    rows, columns = cover.shape
    positions = (dome.skin + dome.directions * thickness[..., None]).reshape(-1, 3)
    along = np.gradient(positions.reshape(rows, columns, 3), axis=0).reshape(-1, 3)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    spread = np.sin(np.minimum(dome.angle, 1.4))[:, None]
    around = np.where(dome.azimuth > np.pi, dome.azimuth - 2 * np.pi, dome.azimuth)[None] * 0.1
    coords = np.stack(
        [
            np.broadcast_to(around, cover.shape) * (0.55 + 0.45 * spread),
            np.broadcast_to(dome.angle[:, None] * 0.1, cover.shape),
            np.zeros_like(cover),
        ],
        -1,
    ).reshape(-1, 3)
    extras = np.zeros((rows * columns, 4), np.float32)
    extras[:, 0] = cover.reshape(-1)
    extras[:, 1] = (np.zeros_like(cover) if tips is None else tips).reshape(-1)
    return make_mesh(
        positions, grid_faces(rows, columns, closed=True), material, part, coords=coords,
        tangents=along, extras=extras, outward_from=SKULL_CENTRE,
    )  # fmt: skip


def _hair_dome(
    radius: Float32Array,
    rest_radius: Float32Array,
    cut: _Cut,
    look: PersonLook,
    materials: HeadMaterials,
    rng: np.random.Generator,
) -> Mesh:
    sign = rng.choice([-1.0, 1.0])
    whorl = np.array(cut.whorl) * (sign, 1.0, 1.0) + rng.normal(0.0, 0.04, 3)
    dome = _dome(radius, rest_radius, whorl, 34, 72, 2.35)
    flat = dome.rest.reshape(-1, 3)
    inside = hairline(flat).reshape(dome.rest.shape[:2])
    inside = inside + rng.normal(0.0, 0.004)
    x, y, z = dome.rest[..., 0], dome.rest[..., 1], dome.rest[..., 2]
    # A receding or a low hairline at the forehead.
    frontal = np.exp(-((x / 0.05) ** 2)) * (z > 0.05)
    fringe = rng.uniform(0.01, 0.042) if rng.random() < cut.fringe else rng.normal(0.0, 0.005)
    swept = 1.0 + 0.4 * np.tanh(x / 0.03) * rng.choice([-1.0, 1.0])
    inside = inside + fringe * np.exp(-((x / 0.062) ** 4)) * (z > 0.05) * swept
    if fringe < 0.008 and rng.random() < 0.25 and look.subject in ("man", "person"):
        corners = np.exp(-(((np.abs(x) - 0.042) / 0.018) ** 2)) * (z > 0.05)
        inside = inside - rng.uniform(0.008, 0.03) * corners
    height = np.clip((y - 0.02) / 0.10, 0.0, 1.0)
    top, side = rng.uniform(*cut.top), rng.uniform(*cut.side)
    thickness = side + (top - side) * height**0.8
    coarse = noise_points(flat.astype(np.float32), cut.lump_size * 0.4, float(rng.uniform(0, 99)))
    fine = noise_points(flat.astype(np.float32), cut.lump_size, float(rng.uniform(0, 99)))
    lumps = (0.5 * coarse + 0.5 * fine).reshape(thickness.shape)
    thickness = thickness * (1.0 + 0.12 * np.tanh(x / 0.04) * rng.normal()) + cut.lump * lumps
    if fringe > 0.01:
        edge = 0.35 + 0.65 * np.clip(inside / 0.02, 0, 1)
        taper = np.where(frontal > 0.3, edge, np.clip(inside / 0.022, 0, 1) ** 0.6)
    else:
        taper = np.clip(inside / 0.024, 0.0, 1.0) ** 0.6
    thickness = np.maximum(thickness, 0.002) * taper + 0.0012
    if look.hair_style == "afro" and look.hat == "none":
        thickness = _ball(dome, thickness, top) * taper + 0.0012
    if look.hat in ("cap", "beanie", "wide hat"):
        under = np.clip((y - 0.045) / 0.015, 0, 1)
        thickness = thickness * (1 - under) + np.minimum(thickness, 0.008) * under
    return _shell(dome, thickness, inside, materials.hair, parts.HEAD_COVER, 0.3 * (1 - taper))


def _ball(dome: _Dome, thickness: np.ndarray, size: float) -> np.ndarray:
    """Return the thickness that reaches a ball around the upper head.

    Bumps of `thickness` stay on it.
    """
    centre = np.array([0.0, 0.035, -0.012])
    radius = 0.105 + 0.75 * size
    offset = dome.skin - centre
    along = (offset * dome.directions).sum(axis=-1)
    reach = np.sqrt(np.maximum(along**2 - (offset**2).sum(axis=-1) + radius**2, 0.0)) - along
    bumps = thickness - thickness.mean()
    return np.maximum(reach + 0.35 * bumps, 0.006)


def _curtains(
    radius: Float32Array,
    cut: _Cut,
    materials: HeadMaterials,
    gravity: np.ndarray,
    rng: np.random.Generator,
) -> list[Mesh]:
    """Return hair that falls from sides and back of the skull: an outer and an inner layer."""
    assert cut.falls_to is not None
    length = -rng.uniform(*cut.falls_to)
    opening = np.deg2rad(rng.uniform(52, 78))
    columns, rows = 61, 20
    azimuth = np.linspace(opening, 2 * np.pi - opening, columns)
    wave = rng.uniform(0.0, 0.010)
    behind_ears = rng.random() < 0.3
    layers = []
    for layer, lift in enumerate((0.022, 0.012)):
        on_skull = _down_the_skull(radius, azimuth, lift)
        t = np.linspace(0.0, 1.0, rows - len(on_skull) + 1)[1:]
        fraction = np.clip(t * 1.5, 0, 1)[:, None]
        down = np.array([0.0, -1.0, 0.0]) * (1 - fraction) + gravity * fraction
        fall = np.cumsum(down, axis=0) / len(t) * length * (1.0 - 0.08 * layer)
        outward = np.stack([np.sin(azimuth), np.zeros(columns), np.cos(azimuth)], -1)
        bulge = 0.012 * np.sin(np.pi * np.clip(t * 1.2, 0, 1)) - 0.020 * t**1.5
        jagged = 1.0 + 0.10 * noise_points(
            np.stack([azimuth * 8, azimuth * 0, azimuth * 0 + layer], -1).astype(np.float32),
            1.0,
            3.7,
        )
        sway = wave * np.sin(t[:, None] * 16.0 + 5.0 * azimuth[None] + layer)
        hanging = (
            on_skull[-1:]
            + fall[:, None] * jagged[None, :, None]
            + outward[None] * (bulge[:, None, None] + sway[..., None])
        )
        if behind_ears:
            front = np.clip((np.cos(azimuth) + 0.15) * 3, 0, 1)[None, :, None]
            hanging = (
                hanging - np.array([0, 0, 0.035]) * front * np.clip(t * 3, 0, 1)[:, None, None]
            )
        positions = np.concatenate([on_skull, hanging])
        t = np.concatenate([np.zeros(len(on_skull)), t])
        fray = noise_points(
            np.stack([azimuth * 30, azimuth * 0, azimuth * 0], -1).astype(np.float32), 1.0, 8.1
        )
        cover = 0.03 * (1.0 - t[:, None] + 0.10 * fray[None]) - 0.0005
        flat = positions.reshape(-1, 3)
        along = np.gradient(positions, axis=0).reshape(-1, 3)
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
        extras = np.zeros((len(flat), 4), np.float32)
        extras[:, 0] = cover.reshape(-1)
        extras[:, 1] = np.repeat(0.15 + 0.75 * t, columns)
        coords = np.stack(
            [
                np.broadcast_to((azimuth - np.pi)[None] * 0.1 + layer, (rows, columns)),
                np.broadcast_to(np.linspace(0.0, length + 0.1, rows)[:, None], (rows, columns)),
                np.zeros((rows, columns)),
            ],
            -1,
        ).reshape(-1, 3)
        faces = grid_faces(rows, columns, closed=False)
        inner = np.tile(SKULL_CENTRE, (len(flat), 1))
        inner[:, 1] = flat[:, 1]
        mesh = make_mesh(
            flat, faces, materials.hair, parts.HANGING, coords=coords, tangents=along,
            extras=extras, outward_from=inner,
        )  # fmt: skip
        above_chin = flat[faces][:, :, 1].mean(axis=1) > -0.075
        mesh.parts[above_chin] = parts.HEAD_COVER
        layers.append(mesh)
    return layers


def _down_the_skull(radius: Float32Array, azimuth: np.ndarray, lift: float) -> np.ndarray:
    """Return (7, C, 3) rows from under the crown's hair down to the widest part of the head."""
    elevation = np.linspace(0.85, -0.05, 7)
    direction = np.stack(
        [
            np.cos(elevation)[:, None] * np.sin(azimuth)[None],
            np.broadcast_to(np.sin(elevation)[:, None], (7, len(azimuth))),
            np.cos(elevation)[:, None] * np.cos(azimuth)[None],
        ],
        -1,
    )
    reach = sample_radius(radius, direction.reshape(-1, 3)).reshape(7, -1)
    rise = lift * np.linspace(0.1, 1.0, 7)[:, None] ** 0.8
    return SKULL_CENTRE + direction * (reach + rise)[..., None]


def _bun(
    radius: Float32Array, cut: _Cut, materials: HeadMaterials, rng: np.random.Generator
) -> Mesh:
    whorl = np.array(cut.whorl) + np.array([0.0, rng.uniform(-0.3, 0.5), 0.0])
    whorl /= np.linalg.norm(whorl)
    size = rng.uniform(0.032, 0.046)
    centre = SKULL_CENTRE + whorl * (float(sample_radius(radius, whorl[None])[0]) + 0.62 * size)
    theta = np.linspace(0.0, np.pi, 12)
    phi = np.linspace(0, 2 * np.pi, 22, endpoint=False)
    side = np.cross(whorl, np.array([1.0, 0, 0.1]))
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(whorl, side), whorl])
    unit = np.stack(
        [
            np.sin(theta)[:, None] * np.cos(phi),
            np.sin(theta)[:, None] * np.sin(phi),
            np.cos(theta)[:, None] + 0 * phi,
        ],
        -1,
    ).reshape(-1, 3)
    lumps = 1.0 + 0.09 * noise_points(unit.astype(np.float32), 2.6, float(rng.uniform(0, 50)))
    points = centre + (unit * lumps[:, None] * (1.0, 1.0, 0.72)) @ axes * size
    swirl = np.cross(unit, np.array([0.0, 0, 1])) @ axes
    swirl /= np.linalg.norm(swirl, axis=1, keepdims=True) + 1e-6
    extras = np.zeros((len(points), 4), np.float32)
    extras[:, :2] = 0.05, 0.3
    coords = np.stack(
        [unit[:, 2] * 0.05, np.arctan2(unit[:, 1], unit[:, 0]) * 0.03, unit[:, 0] * 0], -1
    )
    return make_mesh(
        points, grid_faces(12, 22, closed=True), materials.hair, parts.HANGING, coords=coords,
        tangents=swirl, extras=extras, outward_from=centre,
    )  # fmt: skip


def _ponytail(
    radius: Float32Array,
    cut: _Cut,
    materials: HeadMaterials,
    gravity: np.ndarray,
    rng: np.random.Generator,
) -> Mesh:
    whorl = np.array(cut.whorl) / np.linalg.norm(cut.whorl)
    root = SKULL_CENTRE + whorl * float(sample_radius(radius, whorl[None])[0])
    length = rng.uniform(0.16, 0.32)
    corners = np.stack(
        [root, root + whorl * 0.045 + (0, 0.012, 0), root + whorl * 0.065 + gravity * 0.5 * length,
         root + whorl * 0.045 + gravity * length]
    )  # fmt: skip
    path = smooth_path(corners, 14, 0.45)
    t = np.linspace(0, 1, 14)
    wide = np.interp(t, [0, 0.1, 0.4, 0.8, 1.0], [0.016, 0.018, 0.034, 0.028, 0.006])
    tail = sweep(path, -whorl, wide, wide * 0.75, 16, materials.hair, parts.HANGING)
    extras = tail.extras.copy()
    extras[:, 0] = 0.02
    extras[:, 1] = np.repeat(t, 16) * 0.8
    return make_mesh(
        tail.positions, tail.faces, materials.hair, parts.HANGING, coords=tail.coords,
        tangents=tail.tangents, extras=extras, normals=tail.normals,
    )  # fmt: skip


def _hat(
    radius: Float32Array,
    rest_radius: Float32Array,
    look: PersonLook,
    table: MaterialTable,
    rng: np.random.Generator,
) -> list[Mesh]:
    words = ["black", "navy", "grey", "red", "olive", "beige", "burgundy", "green", "blue", "white"]
    colour = cloth_colour(str(rng.choice(words)), rng)
    second = cloth_colour(str(rng.choice(words)), rng)
    knit = look.hat == "beanie"
    pattern = "plain"
    if knit and rng.random() < 0.3:
        pattern = "striped"
    elif look.hat == "headscarf" and rng.random() < 0.5:
        pattern = "printed"
    cloth = table.add(
        mat.CLOTH, colour, colour2=second, specular=0.03, seed=float(rng.integers(1, 9999)),
        pattern=pattern,
        scale=0.03, bump=0.012 if look.hat == "headscarf" else 0.004, fibre=0.9 if knit else 0.35,
        folds=(10.0, 14.0), fade=0.08,
    )  # fmt: skip
    dome = _dome(radius, rest_radius, np.array([0.0, 1.0, -0.12]), 30, 64, 2.5)
    _x, y, z = dome.rest[..., 0], dome.rest[..., 1], dome.rest[..., 2]
    if look.hat == "headscarf":
        return _headscarf(dome, cloth, rng)
    tilt = rng.uniform(-0.02, 0.12)
    base = rng.uniform(0.052, 0.066)
    line = base + tilt * (z - 0.07) - (0.012 if knit else 0.0) * (z < 0.0)
    above = y - line
    if knit:
        cuff = np.exp(-(((above - 0.018) / 0.02) ** 4))
        ribs = 0.0014 * np.sin(dome.azimuth * 44)[None] * (0.4 + 0.6 * cuff)
        slack = rng.uniform(0.0, 0.03) * np.clip(above / 0.08, 0, 1) ** 2
        thickness = 0.012 + 0.006 * cuff + ribs + slack
    else:
        thickness = 0.014 + 0.010 * np.clip(above / 0.06, 0, 1)
    pieces = [_clean_cut(_shell(dome, thickness, above, cloth, parts.HEAD_COVER), above)]
    if look.hat == "cap":
        reach, drop = rng.uniform(0.06, 0.075), 0.035
        pieces.append(_brim(radius, base, tilt, cloth, 1.05, reach, drop))
    elif look.hat == "wide hat":
        reach, drop = rng.uniform(0.06, 0.11), rng.uniform(-0.01, 0.03)
        pieces.append(_brim(radius, base, tilt, cloth, np.pi, reach, drop))
    return pieces


def _clean_cut(mesh: Mesh, cover: np.ndarray) -> Mesh:
    """Cut a shell where its cover is 0: border vertices move along their meridian to the line."""
    grid = mesh.positions.reshape(*cover.shape, 3)
    kept = cover > 0.0
    leaves = kept[:-1] & ~kept[1:]
    enters = ~kept[:-1] & kept[1:]
    fraction = (cover[:-1] / np.where(leaves | enters, cover[:-1] - cover[1:], 1.0))[..., None]
    border = (grid[:-1] + fraction * (grid[1:] - grid[:-1])).astype(np.float32)
    grid[1:][leaves] = border[leaves]
    kept[1:] |= leaves
    grid[:-1][enters] = border[enters]
    kept[:-1] |= enters
    faces = mesh.faces[kept.reshape(-1)[mesh.faces].all(axis=1)]
    mesh.extras[:, 0] = 0.0
    return replace(
        mesh, faces=faces, materials=mesh.materials[: len(faces)], parts=mesh.parts[: len(faces)]
    )


def _brim(
    radius: Float32Array,
    base: float,
    tilt: float,
    cloth: int,
    half_angle: float,
    width: float,
    drop: float,
) -> Mesh:
    """Return a brim that starts at the crown's border, `half_angle` to both sides of the front."""
    columns, rows = 41, 6
    azimuth = np.linspace(-half_angle, half_angle, columns)
    height = base + tilt * (0.105 * np.cos(azimuth) - 0.06) + 0.008
    direction = np.stack([np.sin(azimuth), (height - SKULL_CENTRE[1]) / 0.1, np.cos(azimuth)], -1)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    inner = SKULL_CENTRE + direction * (sample_radius(radius, direction) + 0.011)[:, None]
    outward = np.stack([np.sin(azimuth), np.zeros(columns), np.cos(azimuth)], -1)
    fade = np.cos(azimuth / half_angle * np.pi / 2) ** 0.5 if half_angle < 3.0 else np.ones(columns)
    t = np.linspace(0.0, 1.0, rows)
    positions = inner[None] + outward[None] * (t[:, None] * width * fade[None])[..., None]
    curve = (
        drop * t[:, None] ** 1.5
        + (0.35 * (positions[..., 0] ** 2) if half_angle < 3.0 else 0.0) * 4.0 * t[:, None]
    )
    positions[..., 1] -= curve
    flat = positions.reshape(-1, 3)
    coords = np.stack([flat[:, 0], flat[:, 2], 0 * flat[:, 0]], -1)
    return make_mesh(
        flat, grid_faces(rows, columns, closed=False), cloth, parts.HANGING, coords=coords,
        tangents=np.tile([1.0, 0, 0], (len(flat), 1)),
    )  # fmt: skip


def _headscarf(dome: _Dome, cloth: int, rng: np.random.Generator) -> list[Mesh]:
    x, y, z = dome.rest[..., 0], dome.rest[..., 1], dome.rest[..., 2]
    # The face stays open in an oval.
    oval = np.hypot(x / rng.uniform(0.062, 0.070), (y - 0.005) / rng.uniform(0.080, 0.092))
    cover = np.where(z > 0.045, (oval - 1.0) * 0.05, 0.05)
    flat = dome.rest.reshape(-1, 3).astype(np.float32)
    folds = noise_points(flat, 34.0, float(rng.uniform(0, 99))).reshape(cover.shape)
    thickness = 0.013 + 0.004 * folds + 0.012 * np.clip(-(y + 0.02) / 0.06, 0, 1) * (z < 0.07)
    shell = _shell(dome, thickness, cover, cloth, parts.HEAD_COVER)
    shell = _clean_cut(shell, cover)
    # Wrapped around the neck and over the shoulders.
    t = np.linspace(0.0, 1.0, 9)
    path = np.stack([0 * t, -0.055 - 0.16 * t, 0.020 - 0.025 * t], -1)
    width = np.interp(t, [0, 0.3, 0.6, 1.0], [0.078, 0.082, 0.105, 0.150])
    depth = np.interp(t, [0, 0.3, 0.6, 1.0], [0.085, 0.088, 0.098, 0.115])
    wrap = sweep(path, np.array([0.0, 0, 1]), width, depth, 40, cloth, parts.HANGING)
    bumps = noise_points(wrap.positions, 45.0, float(rng.uniform(0, 99)))
    points = wrap.positions + wrap.normals * (0.006 * bumps)[:, None]
    wrap = make_mesh(
        points, wrap.faces, cloth, parts.HANGING, coords=wrap.coords, tangents=wrap.tangents,
        outward_from=np.repeat(path, 40, axis=0),
    )  # fmt: skip
    return [shell, wrap]
