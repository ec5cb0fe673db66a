"""The per-pixel shading of every material, in one compiled loop over the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ml.generation.renderer.lighting import (
    FILL,
    FILL_COLOUR,
    GROUND,
    KEY,
    KEY_COLOUR,
    RIM,
    RIM_COLOUR,
    SKY,
    LightRig,
    ShadowMap,
)
from ml.generation.renderer.materials import (
    BEARD,
    BLOTCHES,
    BROW,
    BUMP,
    BUTTONS,
    CLOTH,
    CONTRAST,
    CURL,
    EYE,
    FADE,
    FIBRE,
    FOLD_ACROSS,
    FOLD_ALONG,
    FRECKLES,
    GLOSS,
    HAIR,
    KIND,
    OPENING,
    PATTERN,
    RED,
    RED2,
    RED3,
    SCALE,
    SEED,
    SKIN,
    SPECULAR,
)
from ml.generation.renderer.meshes import Mesh
from ml.generation.renderer.noise import value_noise, value_noise_2d
from ml.imaging.rasterizer import Float32Array, Int32Array


@dataclass(frozen=True)
class Visibility:
    """The visible triangle at every pixel, as `rasterize` returns it."""

    face_index: Int32Array
    barycentric: Float32Array
    depth: Float32Array


def shade(
    mesh: Mesh,
    seen: Visibility,
    materials: Float32Array,
    rig: LightRig,
    shadow: ShadowMap,
    occlusion: Float32Array,
    metres_per_px: float,
    supersampling: int = 1,
) -> Float32Array:
    """Light the visible surfaces.

    Cloth is shaded once per image pixel, not once per sample: its patterns are wide, and it fills
    most of an image of people.

    Args:
        mesh: the scene, positions in pixels of the buffer.
        seen: visibility buffer (H, W).
        materials: (M, 24) float32 material table.
        rig: lights.
        shadow: shadow map of the key light.
        occlusion: (H, W) float32 ambient occlusion, 1 where open.
        metres_per_px: typical size of a pixel, by which fine detail fades out.
        supersampling: samples along each side of an image's pixel.

    Returns:
        (H, W, 3) float32 display-linear RGB, 0 where nothing is seen.
    """
    image = np.zeros((*seen.face_index.shape, 3), np.float32)
    _shade(
        seen.face_index,
        seen.barycentric,
        mesh.faces,
        mesh.materials,
        mesh.positions,
        mesh.normals,
        mesh.coords,
        mesh.tangents,
        mesh.extras,
        materials,
        rig.as_array(),
        shadow.depth,
        shadow.basis,
        np.float32(shadow.bias),
        np.float32(shadow.softness),
        occlusion,
        np.float32(metres_per_px),
        supersampling,
        image,
    )
    return image


@njit(cache=True, fastmath=True)
def _smoothstep(low: float, high: float, x: float) -> float:
    t = (x - low) / (high - low)
    t = min(max(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(cache=True, fastmath=True)
def _cloth(m, u, v, w, fine):  # type: ignore[no-untyped-def]
    """Return the colour of cloth at surface coordinates (metres).

    `w` is 1 on the front of a torso.
    """
    r, g, b = m[RED], m[RED + 1], m[RED + 2]
    pattern, scale, seed = int(m[PATTERN]), m[SCALE], m[SEED]
    mix = 0.0
    if pattern == 1:  # striped: along v, the height
        mix = _smoothstep(-0.12, 0.12, np.sin(6.2832 * v / scale))
    elif pattern == 2:  # checked: both directions, where they cross darker
        a = _smoothstep(-0.15, 0.15, np.sin(6.2832 * v / scale))
        c = _smoothstep(-0.15, 0.15, np.sin(6.2832 * u / scale))
        mix = 0.5 * (a + c) * 0.85
    elif pattern == 3:  # dotted, every second row half a period aside
        gu, gv = u / scale, v / scale
        gu += 0.5 * (np.floor(gv) % 2.0)
        du, dv = gu - np.floor(gu) - 0.5, gv - np.floor(gv) - 0.5
        mix = 1.0 - _smoothstep(0.2, 0.28, np.sqrt(du * du + dv * dv))
    elif pattern == 4:
        # Flowers: one in every cell, moved, sized and coloured by chance.
        cu, cv = np.floor(u / scale), np.floor(v / scale)
        chance = value_noise_2d(cu * 7.3, cv * 7.3, seed)
        turn = 6.2832 * value_noise_2d(cu * 5.1 + 3.0, cv * 5.1, seed + 3.0)
        du = u / scale - cu - 0.5 + 0.18 * np.cos(turn)
        dv = v / scale - cv - 0.5 + 0.18 * np.sin(turn)
        reach = np.sqrt(du * du + dv * dv)
        petals = (0.20 + 0.16 * chance) * (1.0 + 0.28 * np.cos(5.0 * np.arctan2(dv, du) + turn))
        mix = 1.0 - _smoothstep(petals - 0.05, petals + 0.03, reach)
        centre = 1.0 - _smoothstep(0.05, 0.09, reach)
        # Half of the flowers have the third colour; the others' petals have the second, and the
        # third in the middle.
        third = mix * (1.0 if chance > 0.5 else centre)
        mix *= 1.0 - third
        r += third * (m[RED3] - r)
        g += third * (m[RED3 + 1] - g)
        b += third * (m[RED3 + 2] - b)
    r += mix * (m[RED2] - r)
    g += mix * (m[RED2 + 1] - g)
    b += mix * (m[RED2 + 2] - b)
    # A jacket's open front shows what is worn under it; a shirt has a button band.
    if w > 0.5 and pattern != 4:
        # Closes 42 cm below the collar; v grows downwards.
        opening = m[OPENING] * max(0.0, 1.0 - v / 0.42)
        if m[OPENING] > 0.0:
            inside = 1.0 - _smoothstep(opening - 0.004, opening + 0.004, abs(u))
            edge = 1.0 - 0.5 * np.exp(-((abs(u) - opening) ** 2) / 0.00008)
            r = (r + inside * (m[RED3] - r)) * edge
            g = (g + inside * (m[RED3 + 1] - g)) * edge
            b = (b + inside * (m[RED3 + 2] - b)) * edge
        # Two seams 16 mm from the middle, buttons of 11 mm every 85 mm.
        if m[BUTTONS] > 0.5:
            band = np.exp(-((abs(u) - 0.016) ** 2) / 0.000006)
            button_v = v / 0.085 - np.floor(v / 0.085) - 0.5
            button = 1.0 - _smoothstep(0.0045, 0.0065, np.sqrt(u * u + (button_v * 0.085) ** 2))
            dark = (1.0 - 0.35 * band) * (1.0 - 0.55 * button)
            r, g, b = r * dark, g * dark, b * dark
    if m[FIBRE] > 0.0:
        # Threads of 2.4 mm, fibres of 2.4 mm, wear of a hand's breadth; the first two fade out
        # where a pixel is larger.
        weave = (np.sin(u * 2600.0) * np.sin(v * 2600.0)) * 0.5
        grain = value_noise_2d(u * 420.0, v * 420.0, seed) - 0.5
        wear = value_noise_2d(u * 14.0, v * 9.0, seed + 4.0) - 0.5
        shade = 1.0 + m[FIBRE] * (fine * (0.25 * weave + 0.6 * grain)) + m[FADE] * wear
        r, g, b = r * shade, g * shade, b * shade
    return r, g, b


@njit(cache=True, fastmath=True)
def _fold(m, u, v, seed):  # type: ignore[no-untyped-def]
    """Return the height of the folds of a garment, about -1 to 1."""
    # Noise shifts the noise, or folds would run along the axes of the surface coordinates.
    skew = 0.35 * (value_noise_2d(u * 5.0, v * 5.0, seed + 11.0) - 0.5)
    a = value_noise_2d(u * m[FOLD_ACROSS] + skew * 3.0, v * m[FOLD_ALONG] + skew * 4.0, seed)
    b = value_noise_2d(u * m[FOLD_ACROSS] * 2.3 - v * 4.0, v * m[FOLD_ALONG] * 2.1, seed + 5.0)
    ridge = 1.0 - abs(2.0 * a - 1.0)  # a fold is sharp at its top
    return 1.2 * ridge + 0.45 * b


@njit(cache=True, fastmath=True)
def _skin(m, x, y, z, extra, fine):  # type: ignore[no-untyped-def]
    """Return the colour of skin, the weight of the lips, and the cover by brow and beard hair."""
    r, g, b = m[RED], m[RED + 1], m[RED + 2]
    seed = m[SEED]
    # Blotches of 26 and 7 mm.
    broad = value_noise(x * 38.0 + seed, y * 38.0, z * 38.0) - 0.5
    middle = value_noise(x * 140.0, y * 140.0 + seed, z * 140.0) - 0.5
    tone = 1.0 + m[BLOTCHES] * (0.55 * broad + 0.35 * middle)
    r, g, b = r * tone, g * tone * (1.0 - 0.12 * m[BLOTCHES] * broad), b * tone
    red = extra[3]
    if red != 0.0:
        # Blood: less green and blue; negative values are shadowed hollows.
        r *= 1.0 + 0.10 * red - (0.22 * -red if red < 0.0 else 0.0)
        g *= 1.0 - 0.30 * max(red, 0.0) + 0.32 * min(red, 0.0)
        b *= 1.0 - 0.26 * max(red, 0.0) + 0.30 * min(red, 0.0)
    if m[FRECKLES] > 0.0 and fine > 0.0:
        spot = value_noise(x * 330.0, y * 330.0, z * 330.0 + seed)
        freckle = (
            m[FRECKLES] * fine * _smoothstep(0.70, 0.82, spot) * (1.0 if abs(red) > 0.02 else 0.3)
        )
        r, g, b = r * (1 - 0.25 * freckle), g * (1 - 0.42 * freckle), b * (1 - 0.5 * freckle)
    lip = extra[1]
    if lip > 0.0:
        line = 1.0 - 0.18 * value_noise(x * 900.0, y * 160.0, seed)  # lips have fine vertical lines
        r += lip * (m[RED2] * line - r)
        g += lip * (m[RED2 + 1] * line - g)
        b += lip * (m[RED2 + 2] * line - b)
    elif lip < 0.0:  # negative: teeth, in one colour
        r, g, b = r - lip * (0.62 - r), g - lip * (0.58 - g), b - lip * (0.50 - b)
        lip = 0.0
    hair = 0.0
    if extra[2] > 0.0 and m[BEARD] > 0.0:  # where a beard grows
        strand = value_noise(x * 900.0 + seed, y * 260.0, z * 900.0)
        cover = extra[2] * m[BEARD]
        hair = cover * (0.55 + 0.45 * fine * (2.0 * strand - 1.0))
    if extra[0] > 0.0:  # where the brow is
        strand = value_noise(x * 700.0 + y * 500.0, y * 900.0, seed + 2.0)
        brow = _smoothstep(0.12, 0.55, extra[0] * (0.8 + 0.4 * fine * strand)) * m[BROW]
        hair = max(hair, brow)
    hair = min(max(hair, 0.0), 1.0)
    r += hair * (m[RED3] - r)
    g += hair * (m[RED3 + 1] - g)
    b += hair * (m[RED3 + 2] - b)
    return r, g, b, lip, hair


@njit(cache=True, fastmath=True)
def _eye(m, x, y, z):  # type: ignore[no-untyped-def]
    """Return the colour of an eyeball at the unit direction (x, y, z), gaze along +z."""
    off_axis = np.sqrt(x * x + y * y)
    if z < 0.0:  # the back of the ball has no iris
        off_axis = 2.0
    seed = m[SEED]
    r, g, b = 0.60, 0.575, 0.55
    vein = value_noise(x * 6.0 + seed, y * 6.0, z * 6.0)
    g *= 1.0 - 0.10 * vein
    b *= 1.0 - 0.10 * vein
    iris = 1.0 - _smoothstep(0.43, 0.50, off_axis)  # sine of the angle from the gaze
    if iris > 0.0:
        angle = np.arctan2(y, x)
        streak = 0.65 + 0.6 * value_noise_2d(angle * 8.0, off_axis * 6.0, seed)
        ring = 1.0 - 0.6 * _smoothstep(0.34, 0.48, off_axis)
        r += iris * (m[RED] * streak * ring - r)
        g += iris * (m[RED + 1] * streak * ring - g)
        b += iris * (m[RED + 2] * streak * ring - b)
        pupil = 1.0 - _smoothstep(0.15, 0.20, off_axis)
        r, g, b = r * (1 - 0.96 * pupil), g * (1 - 0.96 * pupil), b * (1 - 0.96 * pupil)
    # The upper lid and its lashes shade the ball.
    lid = 1.0 - 0.55 * _smoothstep(0.05, 0.55, y)
    return r * lid, g * lid, b * lid


@njit(cache=True, fastmath=True)
def _shadow_at(depth_map, basis, bias, softness, px, py, pz):  # type: ignore[no-untyped-def]
    """Return the fraction of key light that reaches a point, over a 3 x 3 rotated grid."""
    # column, row and distance in the map
    u = basis[0, 0] * px + basis[0, 1] * py + basis[0, 2] * pz + basis[0, 3]
    v = basis[1, 0] * px + basis[1, 1] * py + basis[1, 2] * pz + basis[1, 3]
    d = basis[2, 0] * px + basis[2, 1] * py + basis[2, 2] * pz + basis[2, 3] - bias
    size = depth_map.shape[0]
    # Percentage-closer filtering; the grid is turned by 37 degrees (0.8, 0.6), so that its steps do
    # not show along the map's axes.
    lit = 0.0
    for i in range(3):
        for j in range(3):
            ou, ov = (i - 1) * 0.85 * softness, (j - 1) * 0.85 * softness
            column = int(u + 0.8 * ou - 0.6 * ov)
            row = int(v + 0.6 * ou + 0.8 * ov)
            if 0 <= row < size and 0 <= column < size:
                gap = d - depth_map[row, column]
                if gap <= 0.0:
                    lit += 1.0
                elif gap < bias:
                    lit += 1.0 - gap / bias  # a ramp instead of a step
            else:
                lit += 1.0
    return lit / 9.0


@njit(cache=True, fastmath=True)
def _tone(x):  # type: ignore[no-untyped-def]
    """Apply a film-like curve: linear in the shadows, rolls off before white."""
    return x * (1.0 + x * 0.10) / (1.0 + 0.55 * x)


@njit(cache=True, fastmath=True)
def _shade(  # type: ignore[no-untyped-def]
    face_index, barycentric, faces, face_materials, positions, normals, coords, tangents, extras,
    materials, rig, shadow_depth, basis, bias, softness, occlusion, metres_per_px, supersampling,
    image,
):  # fmt: skip
    height, width = face_index.shape
    # Image axes: x right, y down, z away from the viewer, so a normal with nz < 0 faces us.
    lx, ly, lz = rig[KEY, 0], rig[KEY, 1], rig[KEY, 2]
    rx, ry, rz = rig[RIM, 0], rig[RIM, 1], rig[RIM, 2]
    fx, fy, fz = rig[FILL, 0], rig[FILL, 1], rig[FILL, 2]
    # Detail finer than a pixel only makes noise.
    fine = min(1.0, 0.0016 / max(metres_per_px, 1e-6))
    extra = np.zeros(4, np.float32)
    for row in range(height):
        for column in range(width):
            f = face_index[row, column]
            if f < 0:
                continue
            # Everything that a vertex carries is interpolated over its triangle.
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa = barycentric[row, column, 0]
            wb = barycentric[row, column, 1]
            wc = barycentric[row, column, 2]
            m = materials[face_materials[f]]
            kind = int(m[KIND])
            if kind == CLOTH:
                # Weave and folds cost most: the samples of a pixel that show one cloth share them.
                first_row = row - row % supersampling
                first_column = column - column % supersampling
                first = face_index[first_row, first_column]
                again = first_row != row or first_column != column
                if again and first >= 0 and face_materials[first] == face_materials[f]:
                    for k in range(3):
                        image[row, column, k] = image[first_row, first_column, k]
                    continue
            nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
            ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
            nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
            px = wa * positions[a, 0] + wb * positions[b, 0] + wc * positions[c, 0]
            py = wa * positions[a, 1] + wb * positions[b, 1] + wc * positions[c, 1]
            pz = wa * positions[a, 2] + wb * positions[b, 2] + wc * positions[c, 2]
            u = wa * coords[a, 0] + wb * coords[b, 0] + wc * coords[c, 0]
            v = wa * coords[a, 1] + wb * coords[b, 1] + wc * coords[c, 1]
            w = wa * coords[a, 2] + wb * coords[b, 2] + wc * coords[c, 2]
            tx = wa * tangents[a, 0] + wb * tangents[b, 0] + wc * tangents[c, 0]
            ty = wa * tangents[a, 1] + wb * tangents[b, 1] + wc * tangents[c, 1]
            tz = wa * tangents[a, 2] + wb * tangents[b, 2] + wc * tangents[c, 2]
            for k in range(4):
                extra[k] = wa * extras[a, k] + wb * extras[b, k] + wc * extras[c, k]
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / length, ny / length, nz / length
            # Sheets (hair, collars) have two sides; a normal that points away is the other side's.
            if nz > 0.12:
                nx, ny, nz = -nx, -ny, -nz
            # Geometric normal for shadows; the folded one for light.
            sx, sy, sz = nx, ny, nz

            specular, gloss = m[SPECULAR], m[GLOSS]
            # How far light reaches round a surface, by colour: 0 is Lambert.
            wrap_r = wrap_g = wrap_b = 0.05
            if kind == CLOTH:
                if m[BUMP] > 0.0:
                    step = 0.004
                    seed = m[SEED]
                    # The slope of the folds, by differences, tilts the normal: a bump map.
                    here = _fold(m, u, v, seed)
                    du = (_fold(m, u + step, v, seed) - here) / step
                    dv = (_fold(m, u, v + step, seed) - here) / step
                    # bitangent: t x n
                    bx, by, bz = ty * nz - tz * ny, tz * nx - tx * nz, tx * ny - ty * nx
                    amount = m[BUMP]
                    nx -= amount * (du * bx + dv * tx)
                    ny -= amount * (du * by + dv * ty)
                    nz -= amount * (du * bz + dv * tz)
                    length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
                    nx, ny, nz = nx / length, ny / length, nz / length
                red, green, blue = _cloth(m, u, v, w, fine)
                wrap_r = wrap_g = wrap_b = 0.18
            elif kind == SKIN:
                red, green, blue, lip, beard = _skin(m, u, v, w, extra, fine)
                if m[BUMP] > 0.0 and fine > 0.4:
                    # Pores, where a pixel is small enough to show them.
                    p0 = value_noise(u * 800.0, v * 800.0, w * 800.0) - 0.5
                    p1 = value_noise(v * 800.0 + 31.0, u * 800.0, w * 800.0) - 0.5
                    nx += m[BUMP] * fine * p0
                    ny += m[BUMP] * fine * p1
                    length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
                    nx, ny, nz = nx / length, ny / length, nz / length
                # hair hides the sheen of skin, lips are wet
                specular = specular * (1.0 - 0.8 * beard) + 0.05 * lip
                gloss = gloss + 18.0 * lip
                # Light that enters skin leaves elsewhere, red travels farthest.
                wrap_r, wrap_g, wrap_b = 0.36, 0.20, 0.12
            elif kind == HAIR:
                # Straight strands are long along v; curls are as long as wide.
                strand = value_noise_2d(
                    u * (900.0 - 480.0 * m[CURL]), v * (26.0 + 400.0 * m[CURL]), m[SEED]
                )
                lock = value_noise_2d(
                    u * (170.0 - 50.0 * m[CURL]), v * (9.0 + 115.0 * m[CURL]), m[SEED] + 7.0
                )
                contrast = m[CONTRAST]
                shade_hair = 1.0 + contrast * (
                    0.9 * (0.35 + 0.65 * fine) * (strand - 0.5) + 1.1 * (lock - 0.5)
                )

                tip = min(max(extra[1], 0.0), 1.0)
                dark = shade_hair * (0.72 + 0.28 * min(1.0, 2.0 * tip + 0.3))
                red = (m[RED] + tip * (m[RED3] - m[RED])) * dark
                green = (m[RED + 1] + tip * (m[RED3 + 1] - m[RED + 1])) * dark
                blue = (m[RED + 2] + tip * (m[RED3 + 2] - m[RED + 2])) * dark
                relief = 0.35 + 0.9 * m[CURL]
                nx += relief * contrast * (lock - 0.5) + 0.2 * (strand - 0.5)
                ny += m[CURL] * (strand - 0.5) + 0.4 * m[CURL] * (lock - 0.5)
                length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
                nx, ny, nz = nx / length, ny / length, nz / length
                wrap_r = wrap_g = wrap_b = 0.25
                specular = specular * (0.5 + strand)
            elif kind == EYE:
                red, green, blue = _eye(m, u, v, w)
                wrap_r = wrap_g = wrap_b = 0.25
            else:
                red, green, blue = m[RED], m[RED + 1], m[RED + 2]

            # Start off the surface, or it shadows itself where the depth map is coarse.
            lit = _shadow_at(
                shadow_depth, basis, bias, softness,
                px + 1.5 * bias * sx, py + 1.5 * bias * sy, pz + 1.5 * bias * sz,
            )  # fmt: skip
            open_sky = occlusion[row, column]
            cosine = nx * lx + ny * ly + nz * lz
            # Wrapped diffuse: soft materials are lit a little beyond the terminator.
            key_r = max(0.0, (cosine + wrap_r) / (1.0 + wrap_r))
            key_g = max(0.0, (cosine + wrap_g) / (1.0 + wrap_g))
            key_b = max(0.0, (cosine + wrap_b) / (1.0 + wrap_b))
            up = 0.5 - 0.5 * ny  # 1 looks up, as y points down
            fill = max(0.0, 0.4 + 0.6 * (nx * fx + ny * fy + nz * fz))
            rim = max(0.0, nx * rx + ny * ry + nz * rz)
            # Ground and sky blend by how far the surface looks up; fill, key and rim add.
            light_r = (
                rig[GROUND, 0] + up * (rig[SKY, 0] - rig[GROUND, 0]) + fill * rig[FILL_COLOUR, 0]
            )
            light_g = (
                rig[GROUND, 1] + up * (rig[SKY, 1] - rig[GROUND, 1]) + fill * rig[FILL_COLOUR, 1]
            )
            light_b = (
                rig[GROUND, 2] + up * (rig[SKY, 2] - rig[GROUND, 2]) + fill * rig[FILL_COLOUR, 2]
            )
            # Occluded skin and cloth glow in their own colour rather than in grey.
            light_r *= open_sky + (1 - open_sky) * 0.35 * red
            light_g *= open_sky + (1 - open_sky) * 0.35 * green
            light_b *= open_sky + (1 - open_sky) * 0.35 * blue
            light_r += lit * key_r * rig[KEY_COLOUR, 0] + rim * rig[RIM_COLOUR, 0]
            light_g += lit * key_g * rig[KEY_COLOUR, 1] + rim * rig[RIM_COLOUR, 1]
            light_b += lit * key_b * rig[KEY_COLOUR, 2] + rim * rig[RIM_COLOUR, 2]

            # Highlights: half vector between light and the viewer, who looks along +z.
            hx, hy, hz = lx, ly, lz - 1.0
            length = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
            hx, hy, hz = hx / length, hy / length, hz / length
            if kind == HAIR:
                # Strands shine across their direction (Kajiya and Kay, 1989), in their own colour.
                along = tx * hx + ty * hy + tz * hz
                shift = 0.12 * (strand - 0.5)
                sine = np.sqrt(max(0.0, 1.0 - (along + shift) ** 2))
                shine = (
                    specular * (sine**gloss) * (0.35 + 0.65 * lit) * max(0.0, cosine * 0.7 + 0.3)
                )
                glint_r = shine * (0.35 * rig[KEY_COLOUR, 0] + 1.6 * red * rig[KEY_COLOUR, 0])
                glint_g = shine * (0.35 * rig[KEY_COLOUR, 1] + 1.6 * green * rig[KEY_COLOUR, 1])
                glint_b = shine * (0.35 * rig[KEY_COLOUR, 2] + 1.6 * blue * rig[KEY_COLOUR, 2])
            else:
                facing = max(0.0, nx * hx + ny * hy + nz * hz)
                # Blinn and Phong, normalised
                shine = specular * (gloss + 2.0) * 0.125 * facing**gloss
                # No highlight on the side that is turned away from the light.
                shine *= lit * max(0.0, min(1.0, cosine * 3.0))
                # Fresnel: surfaces seen edge-on mirror the sky (after Schlick, 1994, with power 4).
                grazing = (1.0 - min(1.0, abs(nz))) ** 4
                sheen = specular * 0.9 * grazing * open_sky
                if kind == EYE:
                    # The window in the eye: a small round reflection of the key light.
                    shine += 0.0 if facing < 0.985 else 0.55
                glint_r = shine * rig[KEY_COLOUR, 0] + sheen * rig[SKY, 0]
                glint_g = shine * rig[KEY_COLOUR, 1] + sheen * rig[SKY, 1]
                glint_b = shine * rig[KEY_COLOUR, 2] + sheen * rig[SKY, 2]
                # The rim light outlines people: it shows on edges alone.
                rim_facing = max(0.0, nx * rx + ny * ry + nz * (rz - 1.0) * 0.5)
                glint_r += specular * rig[RIM_COLOUR, 0] * rim_facing * grazing * 3.0
                glint_g += specular * rig[RIM_COLOUR, 1] * rim_facing * grazing * 3.0
                glint_b += specular * rig[RIM_COLOUR, 2] * rim_facing * grazing * 3.0

            image[row, column, 0] = _tone(max(0.0, red * light_r + glint_r))
            image[row, column, 1] = _tone(max(0.0, green * light_g + glint_g))
            image[row, column, 2] = _tone(max(0.0, blue * light_b + glint_b))
