"""Painted rooms: office, kitchen, living room, studio and a station's hall."""

from __future__ import annotations

import numpy as np

from ml.generation.renderer.canvas import Canvas
from ml.generation.renderer.place_parts import LEAVES, Mood, jitter, pick_colour

_WALLS = [
    (206, 200, 188),
    (188, 194, 192),
    (214, 204, 180),
    (170, 178, 184),
    (196, 184, 176),
    (160, 170, 158),
    (222, 218, 212),
]


_FLOORS = [(146, 112, 82), (168, 138, 104), (120, 94, 74), (150, 146, 140), (112, 108, 106)]


def _room(
    canvas: Canvas, wall: np.ndarray, floor: np.ndarray, depth: float, half: float, high: float
) -> None:
    """Paint back wall, side walls, ceiling and floor of a room that surrounds the camera."""
    rng = canvas.rng
    canvas.gradient(0, canvas.height, wall * 0.9, wall * 0.9)
    ceiling = np.clip(wall * 0.55 + 105, 0, 244)
    canvas.quad(
        np.array(
            [(-half, high, 0.6), (half, high, 0.6), (half, high, depth), (-half, high, depth)]
        ),
        ceiling,
    )
    canvas.quad(
        np.array([(-half, 0, 0.6), (half, 0, 0.6), (half, 0, depth), (-half, 0, depth)]), floor
    )
    canvas.ground_texture(2.0, 0.12)
    canvas.wall((-half, 0.6), (-half, depth), 0, high, wall * 0.88)
    canvas.wall((half, 0.6), (half, depth), 0, high, wall * 0.80)
    canvas.wall((-half, depth), (half, depth), 0, high, wall)
    canvas.texture(0, canvas.height, canvas.width * 0.5, 0.16)
    canvas.wall((-half, depth - 0.02), (half, depth - 0.02), 0, 0.12, np.clip(wall * 1.1, 0, 245))
    if rng.random() < 0.5:
        for x in np.linspace(-half, half, 9):
            canvas.line((x, 0.002, 1.0), (x, 0.002, depth), 0.02, floor * 0.86)


def _window_pane(
    canvas: Canvas,
    mood: Mood,
    x0: float,
    x1: float,
    z: float,
    low: float,
    top: float,
    side: float = 0.0,
) -> None:
    """Paint a window in the back wall, or in a side wall when `side` is its x."""
    top_sky, low_sky = np.asarray(mood.sky[0], float), np.asarray(mood.sky[1], float)
    glow = 1.25 if mood.lamps < 0.5 else 1.0

    def strip(a: float, b: float, bottom: float, upper: float, colour: np.ndarray) -> None:
        if side:
            canvas.wall((side, a), (side, b), bottom, upper, colour)
        else:
            canvas.wall((a, z), (b, z), bottom, upper, colour)

    strip(x0 - 0.07, x1 + 0.07, low - 0.07, top + 0.07, np.array([226, 224, 218.0]))
    middle = low + 0.42 * (top - low)
    strip(x0, x1, middle, top, np.clip(0.5 * (top_sky + low_sky) * glow, 0, 255))
    strip(
        x0, x1, low, middle, np.clip(np.array([112, 124, 92]) * 0.5 + low_sky * 0.42 * glow, 0, 255)
    )
    for fraction in (0.33, 0.66):
        at = x0 + fraction * (x1 - x0)
        strip(at - 0.02, at + 0.02, low, top, np.array([226, 224, 218.0]))


def _shelf(canvas: Canvas, x: float, z: float, width: float, height: float) -> None:
    rng = canvas.rng
    wood = pick_colour(rng, [(120, 88, 60), (206, 200, 190), (88, 64, 48), (168, 136, 100)])
    canvas.box((x, 0, z), (width, height, 0.4), wood * 0.6)
    for level in np.arange(0.3, height - 0.15, 0.38):
        at = x - width / 2 + 0.04
        while at < x + width / 2 - 0.1:
            thick = rng.uniform(0.025, 0.07)
            book = pick_colour(
                rng,
                [
                    (140, 60, 50),
                    (60, 80, 110),
                    (190, 176, 140),
                    (70, 96, 76),
                    (210, 206, 196),
                    (60, 56, 56),
                    (180, 140, 70),
                ],
            )
            if rng.random() < 0.85:
                canvas.wall(
                    (at, z - 0.21),
                    (at + thick, z - 0.21),
                    level,
                    level + rng.uniform(0.2, 0.3),
                    book,
                )
            at += thick + 0.004
        canvas.wall((x - width / 2, z - 0.22), (x + width / 2, z - 0.22), level - 0.03, level, wood)


def _image(canvas: Canvas, x: float, z: float, low: float) -> None:
    rng = canvas.rng
    w, h = rng.uniform(0.4, 1.1), rng.uniform(0.4, 0.8)
    canvas.wall(
        (x - w / 2 - 0.04, z),
        (x + w / 2 + 0.04, z),
        low - 0.04,
        low + h + 0.04,
        pick_colour(rng, [(50, 46, 42), (196, 180, 150), (230, 228, 224)]),
    )
    canvas.wall(
        (x - w / 2, z),
        (x + w / 2, z),
        low,
        low + h,
        pick_colour(rng, [(222, 216, 204), (150, 160, 150), (186, 150, 120)]),
    )
    for _ in range(3):
        a = rng.uniform(-w / 2, w / 4)
        b = rng.uniform(0.0, h * 0.6)
        canvas.wall(
            (x + a, z),
            (x + a + w * 0.25, z),
            low + b,
            low + b + h * 0.3,
            pick_colour(rng, [(90, 110, 120), (170, 90, 70), (70, 80, 70), (210, 180, 120)]),
        )


def paint_office(canvas: Canvas, mood: Mood) -> None:
    """Paint an office: desks with screens, ceiling lights, a row of windows.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    depth, half, high = rng.uniform(6, 11), rng.uniform(3.5, 6), rng.uniform(2.7, 3.1)
    _room(canvas, pick_colour(rng, _WALLS), jitter(rng, (124, 126, 130)), depth, half, high)
    for z in np.arange(2.5, depth, 2.0):
        for x in (-half * 0.45, half * 0.45):
            canvas.quad(
                np.array(
                    [
                        (x - 0.6, high - 0.01, z - 0.3),
                        (x + 0.6, high - 0.01, z - 0.3),
                        (x + 0.6, high - 0.01, z + 0.3),
                        (x - 0.6, high - 0.01, z + 0.3),
                    ]
                ),
                (250, 250, 246),
            )
    if rng.random() < 0.75:
        x = -half + 0.4
        while x < half - 1.6:
            _window_pane(canvas, mood, x, x + 1.5, depth - 0.02, 0.9, 2.4)
            x += 1.75
    else:
        _image(canvas, rng.uniform(-2, 2), depth - 0.02, 1.4)
        _shelf(canvas, rng.uniform(-half + 1, half - 1), depth - 0.3, 1.6, 2.1)
    for z in (depth * 0.75, depth * 0.5):
        for x in (-half * 0.6, 0.1, half * 0.6):
            if rng.random() < 0.75:
                canvas.box(
                    (x, 0, z),
                    (1.5, 0.72, 0.7),
                    pick_colour(rng, [(198, 190, 178), (170, 140, 108), (120, 122, 126)]),
                )
                canvas.wall((x - 0.3, z), (x + 0.3, z), 0.85, 1.22, (36, 38, 42))
                canvas.wall(
                    (x - 0.28, z - 0.01),
                    (x + 0.28, z - 0.01),
                    0.88,
                    1.2,
                    rng.choice([(120, 150, 180), (60, 64, 72), (200, 206, 210)]),
                )
                canvas.blob((x + rng.uniform(-0.5, 0.5), 0.62, z - 0.7), 0.26, (52, 54, 60), 1.3)


def paint_kitchen(canvas: Canvas, mood: Mood) -> None:
    """Paint a kitchen: cupboards, tiles, fridge, a window.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    depth, half, high = rng.uniform(3.4, 5), rng.uniform(2.4, 3.4), 2.6
    wall = pick_colour(rng, _WALLS)
    _room(canvas, wall, pick_colour(rng, _FLOORS), depth, half, high)
    front = pick_colour(
        rng,
        [
            (224, 220, 212),
            (108, 122, 116),
            (88, 98, 116),
            (176, 142, 104),
            (196, 190, 178),
            (66, 68, 72),
        ],
    )
    tile = jitter(rng, (212, 210, 204))
    canvas.wall((-half, depth - 0.02), (half, depth - 0.02), 0.92, 1.5, tile)
    for x in np.arange(-half, half, 0.2):
        canvas.line((x, 0.92, depth - 0.03), (x, 1.5, depth - 0.03), 0.008, tile * 0.84)
    for y in np.arange(0.92, 1.5, 0.12):
        canvas.line((-half, y, depth - 0.03), (half, y, depth - 0.03), 0.008, tile * 0.84)
    fridge = rng.uniform(-half + 0.4, half - 0.4)
    gap = rng.uniform(-1.2, 1.2)
    for x in np.arange(-half + 0.35, half, 0.62):
        canvas.box((x, 0.08, depth - 0.3), (0.6, 0.8, 0.6), front)
        canvas.line(
            (x - 0.12, 0.78, depth - 0.62), (x + 0.12, 0.78, depth - 0.62), 0.022, (70, 70, 72)
        )
        if abs(x - gap) > 0.5:
            canvas.box((x, 1.5, depth - 0.18), (0.6, 0.78, 0.36), front * 0.96)
            canvas.line(
                (x - 0.12, 1.58, depth - 0.37), (x + 0.12, 1.58, depth - 0.37), 0.022, (70, 70, 72)
            )
    canvas.box(
        (0, 0.88, depth - 0.3),
        (2 * half, 0.05, 0.64),
        pick_colour(rng, [(70, 68, 66), (206, 202, 194), (150, 112, 78)]),
    )
    canvas.box((gap, 1.7, depth - 0.2), (0.7, 0.2, 0.4), np.array([150, 152, 154.0]))
    canvas.wall((gap - 0.3, depth - 0.61), (gap + 0.3, depth - 0.61), 0.2, 0.72, (44, 44, 48))
    canvas.box(
        (fridge, 0, depth - 0.33),
        (0.68, 1.9, 0.66),
        pick_colour(rng, [(206, 208, 210), (150, 152, 156), (226, 222, 212)]),
    )
    canvas.line(
        (fridge + 0.28, 0.9, depth - 0.67), (fridge + 0.28, 1.5, depth - 0.67), 0.03, (96, 98, 100)
    )
    for _ in range(rng.integers(3, 9)):
        canvas.blob(
            (rng.uniform(-half, half), 1.0, depth - 0.45),
            rng.uniform(0.04, 0.1),
            pick_colour(
                rng, [(180, 70, 50), (90, 120, 70), (210, 180, 90), (120, 90, 70), (220, 220, 216)]
            ),
            1.2,
        )
    if rng.random() < 0.5:
        x = rng.uniform(-1.6, 0.6)
        _window_pane(canvas, mood, x, x + 1.0, depth - 0.38, 1.05, 1.95)
    if rng.random() < 0.5:
        canvas.box((rng.uniform(-0.8, 0.8), 0, depth * 0.55), (1.6, 0.85, 0.7), front * 0.9)


def paint_living_room(canvas: Canvas, mood: Mood) -> None:
    """Paint a living room: sofa, paintings, shelf, lamp, a window with curtains.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    depth, half, high = rng.uniform(3.6, 6), rng.uniform(2.6, 4), rng.uniform(2.5, 2.9)
    _room(canvas, pick_colour(rng, _WALLS, 12), pick_colour(rng, _FLOORS), depth, half, high)
    if rng.random() < 0.6:
        x = rng.uniform(-half + 0.4, half - 1.8)
        _window_pane(canvas, mood, x, x + 1.4, depth - 0.02, 0.7, 2.2)
        curtain = pick_colour(
            rng, [(196, 186, 168), (140, 100, 84), (110, 124, 120), (216, 210, 200)]
        )
        for at in (x - 0.4, x + 1.4):
            for fold in np.linspace(0, 0.32, 5):
                canvas.wall(
                    (at + fold, depth - 0.1),
                    (at + fold + 0.09, depth - 0.1),
                    0.05,
                    2.4,
                    curtain * rng.uniform(0.86, 1.04),
                )
    for _ in range(rng.integers(1, 4)):
        _image(canvas, rng.uniform(-half + 0.6, half - 0.6), depth - 0.03, rng.uniform(1.3, 1.6))
    if rng.random() < 0.6:
        _shelf(
            canvas,
            rng.choice([-1, 1]) * (half - 0.8),
            depth - 0.25,
            rng.uniform(0.9, 1.5),
            rng.uniform(1.4, 2.2),
        )
    x, z = rng.uniform(-1, 1), depth - 0.7
    sofa = pick_colour(
        rng,
        [
            (110, 116, 120),
            (140, 96, 74),
            (176, 164, 144),
            (72, 88, 96),
            (118, 126, 96),
            (160, 140, 126),
        ],
    )
    canvas.box((x, 0.05, z), (2.1, 0.75, 0.8), sofa)
    canvas.box((x, 0.05, z - 0.2), (1.9, 0.38, 0.8), sofa * 1.08)
    for side in (-1, 1):
        canvas.box((x + side * 1.05, 0.05, z - 0.1), (0.22, 0.58, 0.9), sofa * 0.94)
    for at in (-0.6, 0.55):
        canvas.blob(
            (x + at, 0.58, z - 0.32),
            0.2,
            pick_colour(rng, [(196, 150, 80), (150, 70, 60), (210, 204, 190), (80, 100, 110)]),
            0.9,
        )
    if rng.random() < 0.7:
        lamp = rng.choice([-1, 1]) * rng.uniform(1.4, half - 0.3)
        canvas.line((lamp, 0, z), (lamp, 1.45, z), 0.03, (70, 60, 50))
        shade = np.array([236, 214, 170]) if mood.lamps < 0.5 else np.array([255, 244, 214])
        canvas.quad(
            np.array(
                [
                    (lamp - 0.12, 1.78, z),
                    (lamp + 0.12, 1.78, z),
                    (lamp + 0.22, 1.42, z),
                    (lamp - 0.22, 1.42, z),
                ]
            ),
            shade,
        )
    if rng.random() < 0.6:
        at = rng.uniform(-half + 0.3, half - 0.3)
        canvas.box((at, 0, depth - 0.4), (0.3, 0.35, 0.3), jitter(rng, (170, 120, 90)))
        for _ in range(12):
            canvas.blob(
                (at + rng.normal(0, 0.22), 0.8 + rng.normal(0, 0.25), depth - 0.4),
                rng.uniform(0.07, 0.14),
                pick_colour(rng, LEAVES),
                1.3,
            )


def paint_studio(canvas: Canvas, mood: Mood) -> None:
    """Paint a studio: a paper backdrop with a pool of light.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    tone = pick_colour(
        rng,
        [
            (132, 134, 138),
            (202, 200, 196),
            (66, 68, 72),
            (124, 138, 150),
            (168, 148, 132),
            (112, 118, 104),
            (150, 120, 112),
            (226, 226, 224),
        ],
        5,
    )
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width].astype(np.float32)
    centre = (rng.uniform(0.25, 0.75) * canvas.width, rng.uniform(0.25, 0.6) * canvas.height)
    distance = np.hypot((columns - centre[0]) / canvas.width, (rows - centre[1]) / canvas.height)
    gain = 1.18 - rng.uniform(0.3, 0.9) * distance**1.4
    sweep = rng.uniform(0.82, 1.1)
    gain = gain * np.where(rows > canvas.height * rng.uniform(0.75, 0.95), sweep, 1.0)
    canvas.pixels = np.clip(tone * np.clip(gain, 0.25, 1.3)[..., None], 0, 255).astype(np.uint8)
    canvas.blur(0.02 * canvas.width)
    if rng.random() < 0.35:
        canvas.texture(0, canvas.height, canvas.width * 0.3, 0.3)


def paint_station(canvas: Canvas, mood: Mood) -> None:
    """Paint a station: a platform hall with a train, signs and columns.

    Args:
        canvas: receives the layers, back to front.
        mood: sky and lamps of the light.
    """
    rng = canvas.rng
    depth, half, high = rng.uniform(26, 45), rng.uniform(5, 8), rng.uniform(5, 8)
    wall = pick_colour(rng, [(176, 172, 164), (150, 156, 160), (186, 170, 146)])
    canvas.haze = wall
    canvas.haze_per_m = 0.008
    _room(canvas, wall, jitter(rng, (150, 146, 140)), depth, half, high)
    _window_pane(canvas, mood, -half * 0.7, half * 0.7, depth - 0.1, high * 0.35, high * 0.95)
    side = rng.choice([-1.0, 1.0])
    body = pick_colour(rng, [(196, 198, 200), (150, 44, 44), (56, 86, 128), (196, 160, 60)])
    canvas.wall((side * 3.2, 1.5), (side * 3.2, depth * 0.8), 0.3, 3.4, body)
    canvas.wall((side * 3.19, 1.5), (side * 3.19, depth * 0.8), 1.5, 2.4, (52, 60, 70))
    for z in np.arange(3.0, depth * 0.8, 3.2):
        canvas.wall((side * 3.18, z), (side * 3.18, z + 1.1), 0.35, 2.9, body * 0.86)
    canvas.quad(
        np.array(
            [
                (side * 2.3, 0.01, 1),
                (side * 2.5, 0.01, 1),
                (side * 2.5, 0.01, depth),
                (side * 2.3, 0.01, depth),
            ]
        ),
        (222, 190, 80),
    )
    for z in np.arange(depth * 0.8, 3.5, -5.0):
        x = -side * half * 0.62
        canvas.line((x, 0, z), (x, high, z), 0.4, wall * 0.78)
        canvas.quad(
            np.array(
                [
                    (-0.7, high - 0.05, z),
                    (0.7, high - 0.05, z),
                    (0.7, high - 0.05, z - 1.6),
                    (-0.7, high - 0.05, z - 1.6),
                ]
            ),
            (250, 248, 238),
        )
        if rng.random() < 0.5:
            canvas.wall((-1.1, z), (1.1, z), 2.8, 3.3, rng.choice([(32, 44, 70), (30, 32, 36)]))
            canvas.wall((-0.9, z - 0.01), (0.2, z - 0.01), 2.95, 3.15, (232, 200, 110))
    if rng.random() < 0.6:
        canvas.blob((side * -1.8, 3.9, 9.0), 0.45, (40, 40, 44))
        canvas.blob((side * -1.8, 3.9, 8.98), 0.4, (236, 234, 226))
