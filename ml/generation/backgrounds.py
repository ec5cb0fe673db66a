"""The places of the caption vocabulary, composed procedurally behind the people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ml.generation.canvas import Canvas, Colour
from ml.generation.noise import fractal_image
from ml.imaging.rasterizer import Float32Array

_PAINTED_SIDE = 360
"""Longest side that is painted; larger pictures enlarge it, since backgrounds are out of focus."""


@dataclass(frozen=True)
class _Mood:
    """How a light changes a place: sky colours (top, horizon) and gains of the finished picture."""

    sky: tuple[Colour, Colour]
    gain: tuple[float, float, float]
    lamps: float
    outdoors_only_gain: float = 1.0


_MOODS: dict[str, _Mood] = {
    "bright daylight": _Mood(((98, 150, 206), (196, 216, 232)), (1.0, 1.0, 0.98), 0.0),
    "overcast light": _Mood(((172, 180, 190), (208, 212, 215)), (0.90, 0.93, 0.96), 0.0),
    "golden hour light": _Mood(((134, 150, 182), (246, 204, 148)), (1.04, 0.92, 0.76), 0.2),
    "night light": _Mood(((14, 18, 34), (40, 42, 62)), (0.40, 0.41, 0.50), 1.0, 0.8),
    "warm lamp light": _Mood(((40, 44, 66), (92, 84, 92)), (0.84, 0.72, 0.54), 0.7),
    "soft studio light": _Mood(((176, 194, 212), (214, 220, 224)), (0.95, 0.95, 0.95), 0.0),
    "backlight": _Mood(((188, 206, 224), (250, 242, 224)), (1.12, 1.08, 1.0), 0.1),
}


def paint_background(
    place: str, light: str, height: int, width: int, horizon: float, rng: np.random.Generator
) -> Float32Array:
    """Paint a place under a light, out of focus.

    Args:
        place: one of `ml.captions.scene.PLACES`.
        light: one of `ml.captions.scene.LIGHTS`.
        height: pixels.
        width: pixels.
        horizon: row of the eye level, pixels.
        rng: draws the composition and the blur.

    Returns:
        (height, width, 3) float32 display-linear RGB.

    Raises:
        ValueError: a word is unknown.
    """
    if place not in _PLACES:
        raise ValueError(f"scene place: expected one of {sorted(_PLACES)}, got {place!r}")
    if light not in _MOODS:
        raise ValueError(f"scene light: expected one of {sorted(_MOODS)}, got {light!r}")
    mood = _MOODS[light]
    shrink = min(1.0, _PAINTED_SIDE / max(height, width))
    rows, columns = max(int(height * shrink), 8), max(int(width * shrink), 8)
    canvas = Canvas(rows, columns, horizon * shrink, rng)
    _PLACES[place](canvas, mood)
    canvas.blur(rng.choice([0.0, 0.004, 0.008, 0.014], p=[0.2, 0.3, 0.3, 0.2]) * max(rows, columns))
    picture = canvas.linear() * np.asarray(mood.gain, np.float32) ** 1.6
    if mood.lamps > 0.0 and place != "a studio":
        picture = _bokeh(picture, mood.lamps, canvas.horizon, rng)
    if (rows, columns) != (height, width):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(picture, 0.0, 1.0).astype(np.float32)


def _jitter(rng: np.random.Generator, colour: Colour, amount: float = 10.0) -> np.ndarray:
    base = np.asarray(colour, np.float64)
    shade = base * rng.normal(1.0, 0.06) + rng.normal(0.0, 0.6 * amount) + rng.normal(0.0, 0.5 * amount, 3)
    return np.minimum(np.maximum(shade, 6.0), 250.0)


def _choice(rng: np.random.Generator, colours: list[tuple[int, int, int]], amount: float = 8.0) -> np.ndarray:
    return _jitter(rng, colours[rng.integers(len(colours))], amount)


def _sky(canvas: Canvas, mood: _Mood, clouds: float) -> None:
    top, low = np.asarray(mood.sky[0], float), np.asarray(mood.sky[1], float)
    canvas.haze = low
    canvas.gradient(0, canvas.horizon + 2, top, low)
    rows = int(np.clip(canvas.horizon, 0, canvas.height))
    if rows < 4 or clouds <= 0:
        return
    noise = fractal_image(rows, canvas.width, canvas.width * 0.25, 5, float(canvas.rng.integers(9999)), 2.2)
    cover = np.clip((noise - 0.5) * 3.2 + canvas.rng.uniform(-0.4, 0.3), 0, 1)[..., None] * clouds
    white = np.clip(low * 1.08 + 14, 0, 255)
    band = canvas.pixels[:rows] * (1 - cover) + white * cover
    canvas.pixels[:rows] = np.clip(band, 0, 255).astype(np.uint8)


def _tree(canvas: Canvas, x: float, z: float, height: float, leaf: Colour) -> None:
    rng = canvas.rng
    trunk = _jitter(rng, (86, 70, 56))
    canvas.line((x, 0, z), (x, height * 0.6, z), 0.12 + 0.03 * height, trunk)
    crown = height * rng.uniform(0.26, 0.36)
    offsets = rng.normal(0.0, 1.0, (14, 2)) * (crown * 0.55, crown * 0.5)
    for index in np.argsort(offsets[:, 1]):
        dx, dy = offsets[index]
        light = 0.72 + 0.4 * np.clip(dy / crown + 0.5, 0, 1)
        colour = _jitter(rng, np.asarray(leaf) * light, 6)
        canvas.blob((x + dx, height * 0.72 + dy, z), crown * rng.uniform(0.35, 0.6), colour, 0.85)


_LEAVES = [(78, 104, 52), (92, 116, 60), (66, 92, 56), (110, 122, 64), (138, 118, 58)]


def _trees(canvas: Canvas, count: int, near: float, far: float, spread: float) -> None:
    rng = canvas.rng
    depth = np.sort(rng.uniform(near, far, count))[::-1]
    for z in depth:
        _tree(canvas, rng.uniform(-spread, spread) * z * 0.5, z, rng.uniform(4.5, 9.0), _choice(rng, _LEAVES))


def _windows(
    canvas: Canvas, left: tuple[float, float], right: tuple[float, float], height: float, mood: _Mood, wall: np.ndarray
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


_FACADES = [(178, 160, 140), (152, 110, 90), (196, 188, 176), (134, 132, 134), (204, 180, 146), (120, 106, 98), (168, 172, 176)]


def _street(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    _sky(canvas, mood, rng.uniform(0.2, 0.9))
    canvas.haze_per_m = 0.006
    canvas.gradient(canvas.horizon, canvas.height, (112, 112, 113), (96, 95, 95))
    canvas.ground_texture(3.0, 0.25)
    half = rng.uniform(4.5, 8.0)
    for side in (-1.0, 1.0):
        pavement = _jitter(rng, (150, 147, 142), 4)
        canvas.quad(np.array([(side * half * 0.6, 0, 1.0), (side * half * 3, 0, 1.0), (side * half * 3, 0, 80), (side * half * 0.6, 0, 80)]), pavement)
    end = rng.uniform(35, 70)
    canvas.wall((-40, end), (40, end), 0, rng.uniform(6, 14), canvas.hazed(_choice(rng, _FACADES), 40))
    for side in (-1.0, 1.0):
        z = end
        while z > 2.5:
            depth = rng.uniform(6, 13)
            height = rng.uniform(7, 19)
            near = max(z - depth, 1.5)
            wall = _choice(rng, _FACADES) * (0.82 if side > 0 else 1.0)
            x = side * half * rng.uniform(0.95, 1.12)
            canvas.wall((x, near), (x, z), 0, height, wall)
            _windows(canvas, (x, near), (x, z), height, mood, canvas.hazed(wall, 0.5 * (near + z)))
            canvas.wall((x, near), (x, z), 0, 2.9, wall * rng.uniform(0.4, 0.75))
            awning = _choice(rng, [(150, 60, 50), (56, 86, 76), (60, 70, 104), (176, 150, 96)])
            if rng.random() < 0.6:
                inner = x - side * 1.1
                canvas.quad(np.array([(x, 3.1, near), (x, 3.1, z), (inner, 2.6, z), (inner, 2.6, near)]), awning)
            z = near
    for _ in range(rng.integers(0, 4)):
        x, z = rng.uniform(-half * 0.5, half * 0.5), rng.uniform(12, 40)
        paint = _choice(rng, [(150, 40, 40), (60, 74, 98), (190, 190, 190), (50, 50, 54), (216, 212, 200)])
        canvas.box((x, 0.25, z), (1.8, 0.62, 4.2), paint)
        canvas.box((x, 0.85, z), (1.5, 0.55, 2.2), np.array([70, 80, 92.0]))
    for z in (28.0, 14.0, 8.0):
        for side in (-1.0, 1.0):
            if rng.random() < 0.5:
                canvas.line((side * half * 0.66, 0, z), (side * half * 0.66, 4.6, z), 0.1, (62, 62, 66))
            elif rng.random() < 0.4:
                _tree(canvas, side * half * 0.7, z, rng.uniform(4, 6.5), _choice(rng, _LEAVES))


def _park(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    _sky(canvas, mood, rng.uniform(0.2, 0.9))
    canvas.haze_per_m = 0.008
    canvas.gradient(canvas.horizon, canvas.height, (134, 146, 84), (96, 120, 58))
    canvas.ground_texture(1.6, 0.5)
    bend = rng.uniform(-6, 6)
    path = _jitter(rng, (186, 170, 142), 6)
    canvas.quad(np.array([(bend - 1.5, 0, 45), (bend + 1.5, 0, 45), (2.4, 0, 1.2), (-1.2, 0, 1.2)]), path)
    _trees(canvas, 16, 24, 60, 1.4)
    if rng.random() < 0.4:
        canvas.quad(np.array([(-14, 0, 20), (-3, 0, 20), (-2, 0, 12), (-12, 0, 12)]), np.asarray(mood.sky[1]) * 0.82)
    _trees(canvas, rng.integers(2, 6), 8, 22, 1.1)
    if rng.random() < 0.6:
        x, z = rng.choice([-1, 1]) * rng.uniform(1.6, 3.5), rng.uniform(6, 10)
        wood = _jitter(rng, (122, 86, 58))
        canvas.box((x, 0.42, z), (1.7, 0.07, 0.5), wood)
        for level in (0.56, 0.74):
            canvas.wall((x - 0.85, z + 0.25), (x + 0.85, z + 0.25), level, level + 0.12, wood)


def _beach(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    _sky(canvas, mood, rng.uniform(0.1, 0.8))
    low = np.asarray(mood.sky[1], float)
    shore = canvas.horizon + canvas.focal * 1.6 / rng.uniform(14, 24)
    canvas.gradient(canvas.horizon, shore, low * (0.52, 0.72, 0.82), low * (0.62, 0.84, 0.88))
    canvas.texture(canvas.horizon, shore, 5, 0.28, 7.0)
    canvas.gradient(shore, canvas.height, (214, 196, 160), (196, 174, 136))
    canvas.ground_texture(1.2, 0.3)
    foam = np.stack([np.linspace(-5, canvas.width + 5, 14), shore + rng.normal(0, 1.2, 14)], -1)
    canvas.polygon(np.concatenate([foam, foam[::-1] + (0, rng.uniform(1.5, 4))]), (236, 238, 236))
    for _ in range(rng.integers(0, 4)):
        x, z = rng.uniform(-9, 9), rng.uniform(8, 18)
        canvas.line((x, 0, z), (x, 2.0, z), 0.06, (220, 214, 200))
        cloth = _choice(rng, [(196, 74, 60), (66, 112, 152), (224, 196, 116), (226, 222, 212)])
        for share, shade in ((-1.0, 0.8), (-0.33, 1.0), (0.33, 0.9)):
            canvas.quad(np.array([(x, 2.35, z), (x + 1.3 * share, 1.85, z), (x + 1.3 * (share + 0.67), 1.85, z)]), cloth * shade)
    if rng.random() < 0.35:
        canvas.quad(np.array([(-60, 0, 90), (-20, 7, 90), (-6, 2, 90), (10, 0, 90)]), np.array([96, 112, 100]))


def _room(canvas: Canvas, wall: np.ndarray, floor: np.ndarray, depth: float, half: float, high: float) -> None:
    """Back wall, side walls, ceiling and floor of a room that surrounds the camera."""
    rng = canvas.rng
    canvas.gradient(0, canvas.height, wall * 0.9, wall * 0.9)
    ceiling = np.clip(wall * 0.55 + 105, 0, 244)
    canvas.quad(np.array([(-half, high, 0.6), (half, high, 0.6), (half, high, depth), (-half, high, depth)]), ceiling)
    canvas.quad(np.array([(-half, 0, 0.6), (half, 0, 0.6), (half, 0, depth), (-half, 0, depth)]), floor)
    canvas.ground_texture(2.0, 0.12)
    canvas.wall((-half, 0.6), (-half, depth), 0, high, wall * 0.88)
    canvas.wall((half, 0.6), (half, depth), 0, high, wall * 0.80)
    canvas.wall((-half, depth), (half, depth), 0, high, wall)
    canvas.texture(0, canvas.height, canvas.width * 0.5, 0.16)
    canvas.wall((-half, depth - 0.02), (half, depth - 0.02), 0, 0.12, np.clip(wall * 1.1, 0, 245))
    if rng.random() < 0.5:
        for x in np.linspace(-half, half, 9):
            canvas.line((x, 0.002, 1.0), (x, 0.002, depth), 0.02, floor * 0.86)


def _window_pane(canvas: Canvas, mood: _Mood, x0: float, x1: float, z: float, low: float, top: float, side: float = 0.0) -> None:
    """A window in the back wall, or in a side wall when `side` is its x."""
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
    strip(x0, x1, low, middle, np.clip(np.array([112, 124, 92]) * 0.5 + low_sky * 0.42 * glow, 0, 255))
    for share in (0.33, 0.66):
        at = x0 + share * (x1 - x0)
        strip(at - 0.02, at + 0.02, low, top, np.array([226, 224, 218.0]))


def _shelf(canvas: Canvas, x: float, z: float, width: float, height: float) -> None:
    rng = canvas.rng
    wood = _choice(rng, [(120, 88, 60), (206, 200, 190), (88, 64, 48), (168, 136, 100)])
    canvas.box((x, 0, z), (width, height, 0.4), wood * 0.6)
    for level in np.arange(0.3, height - 0.15, 0.38):
        at = x - width / 2 + 0.04
        while at < x + width / 2 - 0.1:
            thick = rng.uniform(0.025, 0.07)
            book = _choice(rng, [(140, 60, 50), (60, 80, 110), (190, 176, 140), (70, 96, 76), (210, 206, 196), (60, 56, 56), (180, 140, 70)])
            if rng.random() < 0.85:
                canvas.wall((at, z - 0.21), (at + thick, z - 0.21), level, level + rng.uniform(0.2, 0.3), book)
            at += thick + 0.004
        canvas.wall((x - width / 2, z - 0.22), (x + width / 2, z - 0.22), level - 0.03, level, wood)


def _picture(canvas: Canvas, x: float, z: float, low: float) -> None:
    rng = canvas.rng
    w, h = rng.uniform(0.4, 1.1), rng.uniform(0.4, 0.8)
    canvas.wall((x - w / 2 - 0.04, z), (x + w / 2 + 0.04, z), low - 0.04, low + h + 0.04, _choice(rng, [(50, 46, 42), (196, 180, 150), (230, 228, 224)]))
    canvas.wall((x - w / 2, z), (x + w / 2, z), low, low + h, _choice(rng, [(222, 216, 204), (150, 160, 150), (186, 150, 120)]))
    for _ in range(3):
        a = rng.uniform(-w / 2, w / 4)
        b = rng.uniform(0.0, h * 0.6)
        canvas.wall((x + a, z), (x + a + w * 0.25, z), low + b, low + b + h * 0.3, _choice(rng, [(90, 110, 120), (170, 90, 70), (70, 80, 70), (210, 180, 120)]))


_WALLS = [(206, 200, 188), (188, 194, 192), (214, 204, 180), (170, 178, 184), (196, 184, 176), (160, 170, 158), (222, 218, 212)]
_FLOORS = [(146, 112, 82), (168, 138, 104), (120, 94, 74), (150, 146, 140), (112, 108, 106)]


def _office(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    depth, half, high = rng.uniform(6, 11), rng.uniform(3.5, 6), rng.uniform(2.7, 3.1)
    _room(canvas, _choice(rng, _WALLS), _jitter(rng, (124, 126, 130)), depth, half, high)
    for z in np.arange(2.5, depth, 2.0):
        for x in (-half * 0.45, half * 0.45):
            canvas.quad(np.array([(x - 0.6, high - 0.01, z - 0.3), (x + 0.6, high - 0.01, z - 0.3), (x + 0.6, high - 0.01, z + 0.3), (x - 0.6, high - 0.01, z + 0.3)]), (250, 250, 246))
    if rng.random() < 0.75:
        x = -half + 0.4
        while x < half - 1.6:
            _window_pane(canvas, mood, x, x + 1.5, depth - 0.02, 0.9, 2.4)
            x += 1.75
    else:
        _picture(canvas, rng.uniform(-2, 2), depth - 0.02, 1.4)
        _shelf(canvas, rng.uniform(-half + 1, half - 1), depth - 0.3, 1.6, 2.1)
    for z in (depth * 0.75, depth * 0.5):
        for x in (-half * 0.6, 0.1, half * 0.6):
            if rng.random() < 0.75:
                canvas.box((x, 0, z), (1.5, 0.72, 0.7), _choice(rng, [(198, 190, 178), (170, 140, 108), (120, 122, 126)]))
                canvas.wall((x - 0.3, z), (x + 0.3, z), 0.85, 1.22, (36, 38, 42))
                canvas.wall((x - 0.28, z - 0.01), (x + 0.28, z - 0.01), 0.88, 1.2, rng.choice([(120, 150, 180), (60, 64, 72), (200, 206, 210)]))
                canvas.blob((x + rng.uniform(-0.5, 0.5), 0.62, z - 0.7), 0.26, (52, 54, 60), 1.3)


def _kitchen(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    depth, half, high = rng.uniform(3.4, 5), rng.uniform(2.4, 3.4), 2.6
    wall = _choice(rng, _WALLS)
    _room(canvas, wall, _choice(rng, _FLOORS), depth, half, high)
    front = _choice(rng, [(224, 220, 212), (108, 122, 116), (88, 98, 116), (176, 142, 104), (196, 190, 178), (66, 68, 72)])
    tile = _jitter(rng, (212, 210, 204))
    canvas.wall((-half, depth - 0.02), (half, depth - 0.02), 0.92, 1.5, tile)
    for x in np.arange(-half, half, 0.2):
        canvas.line((x, 0.92, depth - 0.03), (x, 1.5, depth - 0.03), 0.008, tile * 0.84)
    for y in np.arange(0.92, 1.5, 0.12):
        canvas.line((-half, y, depth - 0.03), (half, y, depth - 0.03), 0.008, tile * 0.84)
    fridge = rng.uniform(-half + 0.4, half - 0.4)
    gap = rng.uniform(-1.2, 1.2)
    for x in np.arange(-half + 0.35, half, 0.62):
        canvas.box((x, 0.08, depth - 0.3), (0.6, 0.8, 0.6), front)
        canvas.line((x - 0.12, 0.78, depth - 0.62), (x + 0.12, 0.78, depth - 0.62), 0.022, (70, 70, 72))
        if abs(x - gap) > 0.5:
            canvas.box((x, 1.5, depth - 0.18), (0.6, 0.78, 0.36), front * 0.96)
            canvas.line((x - 0.12, 1.58, depth - 0.37), (x + 0.12, 1.58, depth - 0.37), 0.022, (70, 70, 72))
    canvas.box((0, 0.88, depth - 0.3), (2 * half, 0.05, 0.64), _choice(rng, [(70, 68, 66), (206, 202, 194), (150, 112, 78)]))
    canvas.box((gap, 1.7, depth - 0.2), (0.7, 0.2, 0.4), np.array([150, 152, 154.0]))
    canvas.wall((gap - 0.3, depth - 0.61), (gap + 0.3, depth - 0.61), 0.2, 0.72, (44, 44, 48))
    canvas.box((fridge, 0, depth - 0.33), (0.68, 1.9, 0.66), _choice(rng, [(206, 208, 210), (150, 152, 156), (226, 222, 212)]))
    canvas.line((fridge + 0.28, 0.9, depth - 0.67), (fridge + 0.28, 1.5, depth - 0.67), 0.03, (96, 98, 100))
    for _ in range(rng.integers(3, 9)):
        canvas.blob((rng.uniform(-half, half), 1.0, depth - 0.45), rng.uniform(0.04, 0.1), _choice(rng, [(180, 70, 50), (90, 120, 70), (210, 180, 90), (120, 90, 70), (220, 220, 216)]), 1.2)
    if rng.random() < 0.5:
        x = rng.uniform(-1.6, 0.6)
        _window_pane(canvas, mood, x, x + 1.0, depth - 0.38, 1.05, 1.95)
    if rng.random() < 0.5:
        canvas.box((rng.uniform(-0.8, 0.8), 0, depth * 0.55), (1.6, 0.85, 0.7), front * 0.9)


def _living_room(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    depth, half, high = rng.uniform(3.6, 6), rng.uniform(2.6, 4), rng.uniform(2.5, 2.9)
    _room(canvas, _choice(rng, _WALLS, 12), _choice(rng, _FLOORS), depth, half, high)
    if rng.random() < 0.6:
        x = rng.uniform(-half + 0.4, half - 1.8)
        _window_pane(canvas, mood, x, x + 1.4, depth - 0.02, 0.7, 2.2)
        curtain = _choice(rng, [(196, 186, 168), (140, 100, 84), (110, 124, 120), (216, 210, 200)])
        for at in (x - 0.4, x + 1.4):
            for fold in np.linspace(0, 0.32, 5):
                canvas.wall((at + fold, depth - 0.1), (at + fold + 0.09, depth - 0.1), 0.05, 2.4, curtain * rng.uniform(0.86, 1.04))
    for _ in range(rng.integers(1, 4)):
        _picture(canvas, rng.uniform(-half + 0.6, half - 0.6), depth - 0.03, rng.uniform(1.3, 1.6))
    if rng.random() < 0.6:
        _shelf(canvas, rng.choice([-1, 1]) * (half - 0.8), depth - 0.25, rng.uniform(0.9, 1.5), rng.uniform(1.4, 2.2))
    x, z = rng.uniform(-1, 1), depth - 0.7
    sofa = _choice(rng, [(110, 116, 120), (140, 96, 74), (176, 164, 144), (72, 88, 96), (118, 126, 96), (160, 140, 126)])
    canvas.box((x, 0.05, z), (2.1, 0.75, 0.8), sofa)
    canvas.box((x, 0.05, z - 0.2), (1.9, 0.38, 0.8), sofa * 1.08)
    for side in (-1, 1):
        canvas.box((x + side * 1.05, 0.05, z - 0.1), (0.22, 0.58, 0.9), sofa * 0.94)
    for at in (-0.6, 0.55):
        canvas.blob((x + at, 0.58, z - 0.32), 0.2, _choice(rng, [(196, 150, 80), (150, 70, 60), (210, 204, 190), (80, 100, 110)]), 0.9)
    if rng.random() < 0.7:
        lamp = rng.choice([-1, 1]) * rng.uniform(1.4, half - 0.3)
        canvas.line((lamp, 0, z), (lamp, 1.45, z), 0.03, (70, 60, 50))
        shade = np.array([236, 214, 170]) if mood.lamps < 0.5 else np.array([255, 244, 214])
        canvas.quad(np.array([(lamp - 0.12, 1.78, z), (lamp + 0.12, 1.78, z), (lamp + 0.22, 1.42, z), (lamp - 0.22, 1.42, z)]), shade)
    if rng.random() < 0.6:
        at = rng.uniform(-half + 0.3, half - 0.3)
        canvas.box((at, 0, depth - 0.4), (0.3, 0.35, 0.3), _jitter(rng, (170, 120, 90)))
        for _ in range(12):
            canvas.blob((at + rng.normal(0, 0.22), 0.8 + rng.normal(0, 0.25), depth - 0.4), rng.uniform(0.07, 0.14), _choice(rng, _LEAVES), 1.3)


def _studio(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    tone = _choice(rng, [(132, 134, 138), (202, 200, 196), (66, 68, 72), (124, 138, 150), (168, 148, 132), (112, 118, 104), (150, 120, 112), (226, 226, 224)], 5)
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


def _forest(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    low = np.asarray(mood.sky[1], float)
    canvas.haze = low * 0.8 + np.array([10, 24, 0])
    canvas.haze_per_m = 0.022
    canvas.gradient(0, canvas.horizon + 2, low * 0.82, low * 0.9)
    canvas.gradient(canvas.horizon, canvas.height, (112, 104, 66), (82, 78, 48))
    canvas.ground_texture(0.9, 0.7)
    noise = fractal_image(canvas.height, canvas.width, canvas.width * 0.12, 4, float(rng.integers(9999)))
    leaf = _choice(rng, _LEAVES) * 0.95
    top = int(np.clip(canvas.horizon * 1.05, 1, canvas.height))
    cover = np.clip((noise[:top] - 0.42) * 5, 0, 0.9)[..., None]
    shade = leaf * (0.5 + 1.0 * noise[:top, :, None][:, ::-1])
    canvas.pixels[:top] = np.clip(canvas.pixels[:top] * (1 - cover) + shade * cover, 0, 255).astype(np.uint8)
    for z in np.sort(rng.uniform(4, 38, rng.integers(22, 40)))[::-1]:
        x = rng.uniform(-0.62, 0.62) * z
        bark = _choice(rng, [(84, 70, 58), (104, 92, 80), (70, 58, 48), (122, 112, 100)])
        width = rng.uniform(0.16, 0.5)
        lean = rng.normal(0, 0.25)
        for share, light in ((0.0, 0.72), (0.33, 0.95), (0.66, 1.15)):
            canvas.line((x + (share - 0.33) * width, 0, z), (x + lean + (share - 0.33) * width, 12, z), width * 0.4, bark * light)
        for _ in range(2):
            canvas.blob((x + rng.normal(0, 0.8), rng.uniform(0, 0.4), z), rng.uniform(0.3, 0.8), _choice(rng, _LEAVES) * 0.85, 0.6)


def _stadium(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    _sky(canvas, mood, rng.uniform(0.0, 0.7))
    rows = 26
    first = rng.uniform(16, 26)
    seat = _choice(rng, [(60, 84, 130), (150, 52, 48), (92, 96, 102), (196, 156, 70)])
    for index in range(rows - 1, -1, -1):
        z, y = first + index * 0.85, 1.2 + index * 0.46
        canvas.wall((-60, z), (60, z), y - 0.6, y, seat * (0.72 + 0.012 * index))
    top, low = canvas.project(np.array([(0, 1.2 + rows * 0.46, first + rows * 0.85), (0, 1.0, first)]))[:, 1]
    count = int(canvas.width * rng.uniform(3.0, 6.0))
    shirts = np.array([(200, 60, 54), (226, 222, 214), (58, 82, 140), (40, 42, 48), (212, 178, 80), (118, 120, 124), (196, 158, 132)])
    for _ in range(count):
        at = np.array([rng.uniform(0, canvas.width), rng.uniform(top, low)])
        canvas.disc(at, canvas.width * 0.0045, _jitter(rng, shirts[rng.integers(len(shirts))], 14))
    canvas.blur(0.006 * canvas.width)
    canvas.wall((-60, first - 0.5), (60, first - 0.5), 0, 1.0, _choice(rng, [(40, 60, 110), (200, 200, 198), (150, 40, 40)]))
    for x in np.arange(-14, 14, 2.8):
        canvas.wall((x, first - 0.55), (x + 1.6, first - 0.55), 0.25, 0.75, _choice(rng, [(230, 226, 216), (220, 190, 60), (70, 130, 170)]))
    ground = canvas.horizon + canvas.focal * 1.6 / first
    canvas.gradient(ground, canvas.height, (98, 138, 70), (76, 116, 54))
    canvas.ground_texture(2.0, 0.3)
    for z in np.arange(2, first, 4.0):
        canvas.quad(np.array([(-40, 0, z), (40, 0, z), (40, 0, z + 2), (-40, 0, z + 2)]), (102, 146, 74))
    if rng.random() < 0.7:
        canvas.line((-30, 0.01, first * 0.6), (30, 0.01, first * 0.6), 0.12, (226, 228, 220))
    if mood.lamps > 0.3:
        for x in (-12.0, 12.0):
            for column in range(4):
                canvas.disc(canvas.project(np.array([(x + column * 0.8, 15.0, 40.0)]))[0], canvas.width * 0.008, (255, 252, 240))


def _market(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    _sky(canvas, mood, 0.5)
    canvas.haze_per_m = 0.008
    canvas.gradient(canvas.horizon, canvas.height, (142, 132, 118), (126, 116, 102))
    canvas.ground_texture(1.0, 0.35)
    canvas.wall((-30, 30), (30, 30), 0, 9, _choice(rng, _FACADES))
    _windows(canvas, (-30, 30), (30, 30), 9, mood, _choice(rng, _FACADES))
    for z in (22.0, 16.0, 11.5, 8.0, 5.5):
        for side in (-1.0, 1.0):
            if rng.random() < 0.12:
                continue
            x = side * rng.uniform(2.8, 3.8)
            cloth = _choice(rng, [(170, 62, 54), (70, 104, 84), (206, 172, 96), (66, 88, 120), (214, 206, 190)])
            canvas.box((x, 0, z), (2.6, 0.85, 1.2), _choice(rng, [(130, 98, 68), (100, 84, 70), (150, 140, 124)]))
            for column in np.arange(x - 1.15, x + 1.2, 0.46):
                fruit = _choice(rng, [(184, 62, 44), (206, 128, 50), (216, 186, 78), (98, 128, 62), (120, 60, 80), (152, 112, 76)])
                for _ in range(6):
                    canvas.blob((column + rng.uniform(-0.18, 0.18), 0.92 + rng.uniform(0, 0.14), z - 0.45), 0.075, _jitter(rng, fruit, 10))
            canvas.line((x - 1.25, 0, z - 0.6), (x - 1.25, 2.3, z - 0.6), 0.05, (96, 90, 84))
            canvas.line((x + 1.25, 0, z - 0.6), (x + 1.25, 2.3, z - 0.6), 0.05, (96, 90, 84))
            for stripe in range(8):
                a, b = x - 1.4 + stripe * 0.35, x - 1.05 + stripe * 0.35
                tone = cloth if stripe % 2 else np.array([222, 216, 204.0])
                canvas.quad(np.array([(a, 2.75, z + 0.5), (b, 2.75, z + 0.5), (b, 2.2, z - 0.8), (a, 2.2, z - 0.8)]), tone)
                canvas.wall((a, z - 0.8), (b, z - 0.8), 2.02, 2.2, tone * 0.86)


def _station(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    depth, half, high = rng.uniform(26, 45), rng.uniform(5, 8), rng.uniform(5, 8)
    wall = _choice(rng, [(176, 172, 164), (150, 156, 160), (186, 170, 146)])
    canvas.haze = wall
    canvas.haze_per_m = 0.008
    _room(canvas, wall, _jitter(rng, (150, 146, 140)), depth, half, high)
    _window_pane(canvas, mood, -half * 0.7, half * 0.7, depth - 0.1, high * 0.35, high * 0.95)
    side = rng.choice([-1.0, 1.0])
    body = _choice(rng, [(196, 198, 200), (150, 44, 44), (56, 86, 128), (196, 160, 60)])
    canvas.wall((side * 3.2, 1.5), (side * 3.2, depth * 0.8), 0.3, 3.4, body)
    canvas.wall((side * 3.19, 1.5), (side * 3.19, depth * 0.8), 1.5, 2.4, (52, 60, 70))
    for z in np.arange(3.0, depth * 0.8, 3.2):
        canvas.wall((side * 3.18, z), (side * 3.18, z + 1.1), 0.35, 2.9, body * 0.86)
    canvas.quad(np.array([(side * 2.3, 0.01, 1), (side * 2.5, 0.01, 1), (side * 2.5, 0.01, depth), (side * 2.3, 0.01, depth)]), (222, 190, 80))
    for z in np.arange(depth * 0.8, 3.5, -5.0):
        x = -side * half * 0.62
        canvas.line((x, 0, z), (x, high, z), 0.4, wall * 0.78)
        canvas.quad(np.array([(-0.7, high - 0.05, z), (0.7, high - 0.05, z), (0.7, high - 0.05, z - 1.6), (-0.7, high - 0.05, z - 1.6)]), (250, 248, 238))
        if rng.random() < 0.5:
            canvas.wall((-1.1, z), (1.1, z), 2.8, 3.3, rng.choice([(32, 44, 70), (30, 32, 36)]))
            canvas.wall((-0.9, z - 0.01), (0.2, z - 0.01), 2.95, 3.15, (232, 200, 110))
    if rng.random() < 0.6:
        canvas.blob((side * -1.8, 3.9, 9.0), 0.45, (40, 40, 44))
        canvas.blob((side * -1.8, 3.9, 8.98), 0.4, (236, 234, 226))


def _meadow(canvas: Canvas, mood: _Mood) -> None:
    rng = canvas.rng
    _sky(canvas, mood, rng.uniform(0.2, 0.9))
    low = np.asarray(mood.sky[1], float)
    columns = np.arange(-4, canvas.width + 5, 3.0)
    for layer in range(4):
        share = layer / 3.0
        base = canvas.horizon - canvas.height * (0.06 * (1 - share))
        height = canvas.height * (0.42 - 0.32 * share) * rng.uniform(0.6, 1.1)
        phase = rng.uniform(0, 99)
        ridge = fractal_image(1, len(columns) * 3, len(columns) * rng.uniform(0.5, 1.0), 6 - layer, phase)[0, ::3]
        line = base - height * np.clip(ridge - 0.25, 0, 1) * 1.6
        near = np.array([88, 108, 70.0]) if layer > 1 else np.array([104, 110, 116.0])
        colour = low * (0.66 - 0.5 * share) + near * (0.34 + 0.5 * share)
        outline = np.concatenate([np.stack([columns, line], -1), [(canvas.width + 9, canvas.height), (-9, canvas.height)]])
        canvas.polygon(outline, colour)
        if layer == 0 and rng.random() < 0.6:
            snow = np.concatenate([np.stack([columns, line], -1), np.stack([columns, np.maximum(line + height * 0.12 * ridge, line)], -1)[::-1]])
            canvas.polygon(snow, np.clip(low * 1.04, 0, 250))
    canvas.gradient(canvas.horizon, canvas.height, (128, 144, 82), (98, 122, 56))
    canvas.haze_per_m = 0.01
    canvas.ground_texture(1.2, 0.6)
    _trees(canvas, rng.integers(0, 8), 22, 60, 1.3)
    flower = _choice(rng, [(226, 210, 110), (220, 216, 226), (196, 128, 150), (170, 120, 180)])
    for _ in range(rng.integers(0, 120)):
        z = rng.uniform(2.5, 14)
        canvas.blob((rng.uniform(-0.5, 0.5) * z, 0.15, z), 0.03, _jitter(rng, flower, 14))


def _bokeh(picture: Float32Array, amount: float, horizon: float, rng: np.random.Generator) -> Float32Array:
    """Out-of-focus lamps, added as light."""
    height, width = picture.shape[:2]
    glow = np.zeros((height, width, 3), np.uint8)
    for _ in range(int(amount * rng.integers(4, 22))):
        x = int(rng.uniform(0, width) * 16)
        y = int((horizon - abs(rng.normal(0.0, 0.28)) * height + 0.05 * height) * 16)
        radius = int(rng.uniform(0.008, 0.035) * width * 16)
        colour = _LAMPS[rng.choice(4, p=[0.45, 0.35, 0.12, 0.08])] * rng.uniform(30.0, 110.0)
        cv2.circle(glow, (x, y), radius, tuple(int(v) for v in colour), -1, cv2.LINE_AA, 4)
    glow = cv2.GaussianBlur(glow, (0, 0), max(0.004 * width, 0.5))
    return picture + glow * np.float32(1.0 / 255.0)


_LAMPS = np.array([(1.0, 0.78, 0.45), (1.0, 0.88, 0.7), (0.75, 0.85, 1.0), (1.0, 0.5, 0.35)])
_PLACES: dict[str, Callable[[Canvas, _Mood], None]] = {
    "a city street": _street,
    "a park": _park,
    "a beach": _beach,
    "an office": _office,
    "a kitchen": _kitchen,
    "a living room": _living_room,
    "a studio": _studio,
    "a forest": _forest,
    "a stadium": _stadium,
    "a market": _market,
    "a station": _station,
    "a mountain meadow": _meadow,
}
