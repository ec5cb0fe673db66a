"""Painted places under the sky: street, park, beach, forest, stadium, market, meadow."""

from __future__ import annotations

import numpy as np

from ml.generation.renderer.canvas import Canvas
from ml.generation.renderer.noise import fractal_image
from ml.generation.renderer.place_parts import (
    LEAVES,
    Mood,
    jitter,
    paint_sky,
    paint_tree,
    paint_trees,
    pick_colour,
)

_FACADES = [
    (178, 160, 140),
    (152, 110, 90),
    (196, 188, 176),
    (134, 132, 134),
    (204, 180, 146),
    (120, 106, 98),
    (168, 172, 176),
]


def _windows(
    canvas: Canvas,
    left: tuple[float, float],
    right: tuple[float, float],
    height: float,
    mood: Mood,
    wall: np.ndarray,
) -> None:
    rng = canvas.rng
    length = float(np.hypot(right[0] - left[0], right[1] - left[1]))
    columns, floors = max(int(length / 2.6), 1), min(max(int(height / 3.2), 1), 9)
    columns = min(columns, 9)
    sky = np.asarray(mood.sky[1], float)
    for floor in range(floors):
        base = 0.9 + floor * height / floors
        top = base + 0.5 * height / floors
        for column in range(columns):
            a, b = (column + 0.25) / columns, (column + 0.75) / columns
            pane = sky * rng.uniform(0.25, 0.62)
            if mood.lamps > 0.5 and rng.random() < 0.4:
                pane = np.array([255, 214, 150]) * rng.uniform(1.0, 1.8)
            start = (left[0] + a * (right[0] - left[0]), left[1] + a * (right[1] - left[1]))
            end = (left[0] + b * (right[0] - left[0]), left[1] + b * (right[1] - left[1]))
            canvas.wall(start, end, base - 0.08, top + 0.06, wall * 0.82)
            canvas.wall(start, end, base, top, pane)


def paint_street(canvas: Canvas, mood: Mood) -> None:
    """Paint a street: houses with windows, cars, lamp posts.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    paint_sky(canvas, mood, rng.uniform(0.2, 0.9))
    canvas.haze_per_m = 0.006
    canvas.gradient(canvas.horizon, canvas.height, (112, 112, 113), (96, 95, 95))
    canvas.ground_texture(3.0, 0.25)
    half = rng.uniform(4.5, 8.0)
    for side in (-1.0, 1.0):
        pavement = jitter(rng, (150, 147, 142), 4)
        canvas.quad(
            np.array(
                [
                    (side * half * 0.6, 0, 1.0),
                    (side * half * 3, 0, 1.0),
                    (side * half * 3, 0, 80),
                    (side * half * 0.6, 0, 80),
                ]
            ),
            pavement,
        )
    end = rng.uniform(35, 70)
    canvas.wall(
        (-40, end), (40, end), 0, rng.uniform(6, 14), canvas.hazed(pick_colour(rng, _FACADES), 40)
    )
    for side in (-1.0, 1.0):
        z = end
        while z > 2.5:
            depth = rng.uniform(6, 13)
            height = rng.uniform(7, 19)
            near = max(z - depth, 1.5)
            wall = pick_colour(rng, _FACADES) * (0.82 if side > 0 else 1.0)
            x = side * half * rng.uniform(0.95, 1.12)
            canvas.wall((x, near), (x, z), 0, height, wall)
            _windows(canvas, (x, near), (x, z), height, mood, canvas.hazed(wall, 0.5 * (near + z)))
            canvas.wall((x, near), (x, z), 0, 2.9, wall * rng.uniform(0.4, 0.75))
            awning = pick_colour(rng, [(150, 60, 50), (56, 86, 76), (60, 70, 104), (176, 150, 96)])
            if rng.random() < 0.6:
                inner = x - side * 1.1
                canvas.quad(
                    np.array([(x, 3.1, near), (x, 3.1, z), (inner, 2.6, z), (inner, 2.6, near)]),
                    awning,
                )
            z = near
    for _ in range(rng.integers(0, 4)):
        x, z = rng.uniform(-half * 0.5, half * 0.5), rng.uniform(12, 40)
        paint = pick_colour(
            rng, [(150, 40, 40), (60, 74, 98), (190, 190, 190), (50, 50, 54), (216, 212, 200)]
        )
        canvas.box((x, 0.25, z), (1.8, 0.62, 4.2), paint)
        canvas.box((x, 0.85, z), (1.5, 0.55, 2.2), np.array([70, 80, 92.0]))
    for z in (28.0, 14.0, 8.0):
        for side in (-1.0, 1.0):
            if rng.random() < 0.5:
                canvas.line(
                    (side * half * 0.66, 0, z), (side * half * 0.66, 4.6, z), 0.1, (62, 62, 66)
                )
            elif rng.random() < 0.4:
                paint_tree(
                    canvas, side * half * 0.7, z, rng.uniform(4, 6.5), pick_colour(rng, LEAVES)
                )


def paint_park(canvas: Canvas, mood: Mood) -> None:
    """Paint a park: lawn, path, trees, at times a pond and a bench.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    paint_sky(canvas, mood, rng.uniform(0.2, 0.9))
    canvas.haze_per_m = 0.008
    canvas.gradient(canvas.horizon, canvas.height, (134, 146, 84), (96, 120, 58))
    canvas.ground_texture(1.6, 0.5)
    bend = rng.uniform(-6, 6)
    path = jitter(rng, (186, 170, 142), 6)
    canvas.quad(
        np.array([(bend - 1.5, 0, 45), (bend + 1.5, 0, 45), (2.4, 0, 1.2), (-1.2, 0, 1.2)]), path
    )
    paint_trees(canvas, 16, 24, 60, 1.4)
    if rng.random() < 0.4:
        canvas.quad(
            np.array([(-14, 0, 20), (-3, 0, 20), (-2, 0, 12), (-12, 0, 12)]),
            np.asarray(mood.sky[1]) * 0.82,
        )
    paint_trees(canvas, int(rng.integers(2, 6)), 8, 22, 1.1)
    if rng.random() < 0.6:
        x, z = rng.choice([-1, 1]) * rng.uniform(1.6, 3.5), rng.uniform(6, 10)
        wood = jitter(rng, (122, 86, 58))
        canvas.box((x, 0.42, z), (1.7, 0.07, 0.5), wood)
        for level in (0.56, 0.74):
            canvas.wall((x - 0.85, z + 0.25), (x + 0.85, z + 0.25), level, level + 0.12, wood)


def paint_beach(canvas: Canvas, mood: Mood) -> None:
    """Paint a beach: sky, sea, foam, sand and umbrellas.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    paint_sky(canvas, mood, rng.uniform(0.1, 0.8))
    low = np.asarray(mood.sky[1], float)
    shore = canvas.horizon + canvas.focal * 1.6 / rng.uniform(14, 24)
    canvas.gradient(canvas.horizon, shore, low * (0.52, 0.72, 0.82), low * (0.62, 0.84, 0.88))
    canvas.texture(canvas.horizon, shore, 5, 0.28, 7.0)
    canvas.gradient(shore, canvas.height, (214, 196, 160), (196, 174, 136))
    canvas.ground_texture(1.2, 0.3)
    foam = np.stack([np.linspace(-5, canvas.width + 5, 14), shore + rng.normal(0, 1.2, 14)], -1)
    canvas.polygon(
        np.concatenate([foam, foam[::-1] + np.array([0.0, rng.uniform(1.5, 4)])]), (236, 238, 236)
    )
    for _ in range(rng.integers(0, 4)):
        x, z = rng.uniform(-9, 9), rng.uniform(8, 18)
        canvas.line((x, 0, z), (x, 2.0, z), 0.06, (220, 214, 200))
        cloth = pick_colour(rng, [(196, 74, 60), (66, 112, 152), (224, 196, 116), (226, 222, 212)])
        for fraction, shade in ((-1.0, 0.8), (-0.33, 1.0), (0.33, 0.9)):
            canvas.quad(
                np.array(
                    [
                        (x, 2.35, z),
                        (x + 1.3 * fraction, 1.85, z),
                        (x + 1.3 * (fraction + 0.67), 1.85, z),
                    ]
                ),
                cloth * shade,
            )
    if rng.random() < 0.35:
        canvas.quad(
            np.array([(-60, 0, 90), (-20, 7, 90), (-6, 2, 90), (10, 0, 90)]),
            np.array([96, 112, 100]),
        )


def paint_forest(canvas: Canvas, mood: Mood) -> None:
    """Paint a forest: trunks, undergrowth and light between the leaves.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    low = np.asarray(mood.sky[1], float)
    canvas.haze = low * 0.8 + np.array([10, 24, 0])
    canvas.haze_per_m = 0.022
    canvas.gradient(0, canvas.horizon + 2, low * 0.82, low * 0.9)
    canvas.gradient(canvas.horizon, canvas.height, (112, 104, 66), (82, 78, 48))
    canvas.ground_texture(0.9, 0.7)
    noise = fractal_image(
        canvas.height, canvas.width, canvas.width * 0.12, 4, float(rng.integers(9999))
    )
    leaf = pick_colour(rng, LEAVES) * 0.95
    top = int(np.clip(canvas.horizon * 1.05, 1, canvas.height))
    cover = np.clip((noise[:top] - 0.42) * 5, 0, 0.9)[..., None]
    shade = leaf * (0.5 + 1.0 * noise[:top, :, None][:, ::-1])
    canvas.pixels[:top] = np.clip(canvas.pixels[:top] * (1 - cover) + shade * cover, 0, 255).astype(
        np.uint8
    )
    for z in np.sort(rng.uniform(4, 38, rng.integers(22, 40)))[::-1]:
        x = rng.uniform(-0.62, 0.62) * z
        bark = pick_colour(rng, [(84, 70, 58), (104, 92, 80), (70, 58, 48), (122, 112, 100)])
        width = rng.uniform(0.16, 0.5)
        lean = rng.normal(0, 0.25)
        for fraction, light in ((0.0, 0.72), (0.33, 0.95), (0.66, 1.15)):
            canvas.line(
                (x + (fraction - 0.33) * width, 0, z),
                (x + lean + (fraction - 0.33) * width, 12, z),
                width * 0.4,
                bark * light,
            )
        for _ in range(2):
            canvas.blob(
                (x + rng.normal(0, 0.8), rng.uniform(0, 0.4), z),
                rng.uniform(0.3, 0.8),
                pick_colour(rng, LEAVES) * 0.85,
                0.6,
            )


def paint_stadium(canvas: Canvas, mood: Mood) -> None:
    """Paint a stadium: tiers full of blurred colour above a pitch.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    paint_sky(canvas, mood, rng.uniform(0.0, 0.7))
    rows = 26
    first = rng.uniform(16, 26)
    seat = pick_colour(rng, [(60, 84, 130), (150, 52, 48), (92, 96, 102), (196, 156, 70)])
    for index in range(rows - 1, -1, -1):
        z, y = first + index * 0.85, 1.2 + index * 0.46
        canvas.wall((-60, z), (60, z), y - 0.6, y, seat * (0.72 + 0.012 * index))
    top, low = canvas.project(
        np.array([(0, 1.2 + rows * 0.46, first + rows * 0.85), (0, 1.0, first)])
    )[:, 1]
    count = int(canvas.width * rng.uniform(3.0, 6.0))
    shirts = np.array(
        [
            (200, 60, 54),
            (226, 222, 214),
            (58, 82, 140),
            (40, 42, 48),
            (212, 178, 80),
            (118, 120, 124),
            (196, 158, 132),
        ]
    )
    for _ in range(count):
        at = np.array([rng.uniform(0, canvas.width), rng.uniform(top, low)])
        canvas.disc(at, canvas.width * 0.0045, jitter(rng, shirts[rng.integers(len(shirts))], 14))
    canvas.blur(0.006 * canvas.width)
    canvas.wall(
        (-60, first - 0.5),
        (60, first - 0.5),
        0,
        1.0,
        pick_colour(rng, [(40, 60, 110), (200, 200, 198), (150, 40, 40)]),
    )
    for x in np.arange(-14, 14, 2.8):
        canvas.wall(
            (x, first - 0.55),
            (x + 1.6, first - 0.55),
            0.25,
            0.75,
            pick_colour(rng, [(230, 226, 216), (220, 190, 60), (70, 130, 170)]),
        )
    ground = canvas.horizon + canvas.focal * 1.6 / first
    canvas.gradient(ground, canvas.height, (98, 138, 70), (76, 116, 54))
    canvas.ground_texture(2.0, 0.3)
    for z in np.arange(2, first, 4.0):
        canvas.quad(
            np.array([(-40, 0, z), (40, 0, z), (40, 0, z + 2), (-40, 0, z + 2)]), (102, 146, 74)
        )
    if rng.random() < 0.7:
        canvas.line((-30, 0.01, first * 0.6), (30, 0.01, first * 0.6), 0.12, (226, 228, 220))
    if mood.lamps > 0.3:
        for x in (-12.0, 12.0):
            for column in range(4):
                canvas.disc(
                    canvas.project(np.array([(x + column * 0.8, 15.0, 40.0)]))[0],
                    canvas.width * 0.008,
                    (255, 252, 240),
                )


def paint_market(canvas: Canvas, mood: Mood) -> None:
    """Paint a market: stalls with striped roofs and crates in front of a house.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    paint_sky(canvas, mood, 0.5)
    canvas.haze_per_m = 0.008
    canvas.gradient(canvas.horizon, canvas.height, (142, 132, 118), (126, 116, 102))
    canvas.ground_texture(1.0, 0.35)
    canvas.wall((-30, 30), (30, 30), 0, 9, pick_colour(rng, _FACADES))
    _windows(canvas, (-30, 30), (30, 30), 9, mood, pick_colour(rng, _FACADES))
    for z in (22.0, 16.0, 11.5, 8.0, 5.5):
        for side in (-1.0, 1.0):
            if rng.random() < 0.12:
                continue
            x = side * rng.uniform(2.8, 3.8)
            cloth = pick_colour(
                rng, [(170, 62, 54), (70, 104, 84), (206, 172, 96), (66, 88, 120), (214, 206, 190)]
            )
            canvas.box(
                (x, 0, z),
                (2.6, 0.85, 1.2),
                pick_colour(rng, [(130, 98, 68), (100, 84, 70), (150, 140, 124)]),
            )
            for column in np.arange(x - 1.15, x + 1.2, 0.46):
                fruit = pick_colour(
                    rng,
                    [
                        (184, 62, 44),
                        (206, 128, 50),
                        (216, 186, 78),
                        (98, 128, 62),
                        (120, 60, 80),
                        (152, 112, 76),
                    ],
                )
                for _ in range(6):
                    canvas.blob(
                        (column + rng.uniform(-0.18, 0.18), 0.92 + rng.uniform(0, 0.14), z - 0.45),
                        0.075,
                        jitter(rng, fruit, 10),
                    )
            canvas.line((x - 1.25, 0, z - 0.6), (x - 1.25, 2.3, z - 0.6), 0.05, (96, 90, 84))
            canvas.line((x + 1.25, 0, z - 0.6), (x + 1.25, 2.3, z - 0.6), 0.05, (96, 90, 84))
            for stripe in range(8):
                a, b = x - 1.4 + stripe * 0.35, x - 1.05 + stripe * 0.35
                tone = cloth if stripe % 2 else np.array([222, 216, 204.0])
                canvas.quad(
                    np.array(
                        [
                            (a, 2.75, z + 0.5),
                            (b, 2.75, z + 0.5),
                            (b, 2.2, z - 0.8),
                            (a, 2.2, z - 0.8),
                        ]
                    ),
                    tone,
                )
                canvas.wall((a, z - 0.8), (b, z - 0.8), 2.02, 2.2, tone * 0.86)


def paint_meadow(canvas: Canvas, mood: Mood) -> None:
    """Paint a meadow with flowers, behind it mountain ridges in haze.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    paint_sky(canvas, mood, rng.uniform(0.2, 0.9))
    low = np.asarray(mood.sky[1], float)
    columns = np.arange(-4, canvas.width + 5, 3.0)
    for layer in range(4):
        fraction = layer / 3.0
        base = canvas.horizon - canvas.height * (0.06 * (1 - fraction))
        height = canvas.height * (0.42 - 0.32 * fraction) * rng.uniform(0.6, 1.1)
        phase = rng.uniform(0, 99)
        ridge = fractal_image(
            1, len(columns) * 3, len(columns) * rng.uniform(0.5, 1.0), 6 - layer, phase
        )[0, ::3]
        line = base - height * np.clip(ridge - 0.25, 0, 1) * 1.6
        near = np.array([88, 108, 70.0]) if layer > 1 else np.array([104, 110, 116.0])
        colour = low * (0.66 - 0.5 * fraction) + near * (0.34 + 0.5 * fraction)
        outline = np.concatenate(
            [
                np.stack([columns, line], -1),
                [(canvas.width + 9, canvas.height), (-9, canvas.height)],
            ]
        )
        canvas.polygon(outline, colour)
        if layer == 0 and rng.random() < 0.6:
            snow = np.concatenate(
                [
                    np.stack([columns, line], -1),
                    np.stack([columns, np.maximum(line + height * 0.12 * ridge, line)], -1)[::-1],
                ]
            )
            canvas.polygon(snow, np.clip(low * 1.04, 0, 250))
    canvas.gradient(canvas.horizon, canvas.height, (128, 144, 82), (98, 122, 56))
    canvas.haze_per_m = 0.01
    canvas.ground_texture(1.2, 0.6)
    paint_trees(canvas, int(rng.integers(0, 8)), 22, 60, 1.3)
    flower = pick_colour(rng, [(226, 210, 110), (220, 216, 226), (196, 128, 150), (170, 120, 180)])
    for _ in range(rng.integers(0, 120)):
        z = rng.uniform(2.5, 14)
        canvas.blob((rng.uniform(-0.5, 0.5) * z, 0.15, z), 0.03, jitter(rng, flower, 14))
