"""The places of the caption vocabulary, composed procedurally behind the people."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ml.generation.renderer.canvas import Canvas
from ml.generation.renderer.place_parts import Mood
from ml.generation.renderer.places_indoors import (
    paint_kitchen,
    paint_living_room,
    paint_office,
    paint_station,
    paint_studio,
)
from ml.generation.renderer.places_outdoors import (
    paint_beach,
    paint_forest,
    paint_market,
    paint_meadow,
    paint_park,
    paint_stadium,
    paint_street,
)
from ml.imaging.rasterizer import Float32Array

_PAINTED_SIDE = 360
"""Longest side that is painted; larger images enlarge it, since backgrounds are out of focus."""


_MOODS: dict[str, Mood] = {
    "bright daylight": Mood(((98, 150, 206), (196, 216, 232)), (1.0, 1.0, 0.98), 0.0),
    "overcast light": Mood(((172, 180, 190), (208, 212, 215)), (0.90, 0.93, 0.96), 0.0),
    "golden hour light": Mood(((134, 150, 182), (246, 204, 148)), (1.04, 0.92, 0.76), 0.0),
    "night light": Mood(((14, 18, 34), (40, 42, 62)), (0.40, 0.41, 0.50), 1.0),
    "warm lamp light": Mood(((40, 44, 66), (92, 84, 92)), (0.84, 0.72, 0.54), 0.6),
    "soft studio light": Mood(((176, 194, 212), (214, 220, 224)), (0.95, 0.95, 0.95), 0.0),
    "backlight": Mood(((188, 206, 224), (250, 242, 224)), (1.12, 1.08, 1.0), 0.0),
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
    image = canvas.linear() * np.asarray(mood.gain, np.float32) ** 1.6
    if mood.lamps > 0.0:
        image = _bokeh(image, mood.lamps * _LAMP_PLACES.get(place, 0.0), canvas.horizon, rng)
    if (rows, columns) != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def _bokeh(
    image: Float32Array, amount: float, horizon: float, rng: np.random.Generator
) -> Float32Array:
    """Return out-of-focus lamps, added as light."""
    height, width = image.shape[:2]
    glow = np.zeros((height, width, 3), np.uint8)
    for _ in range(int(amount * rng.integers(4, 22))):
        x = int(rng.uniform(0, width) * 16)
        y = int((horizon - abs(rng.normal(0.0, 0.16)) * height) * 16)
        radius = int(rng.uniform(0.008, 0.035) * width * 16)
        colour = _LAMPS[rng.choice(4, p=[0.45, 0.35, 0.12, 0.08])] * rng.uniform(25.0, 90.0)
        cv2.circle(glow, (x, y), radius, tuple(int(v) for v in colour), -1, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(glow, (0, 0), max(0.006 * width, 0.5))
    return image + soft * np.float32(1.0 / 255.0)


_LAMP_PLACES = {
    "a city street": 1.0,
    "a market": 0.8,
    "a station": 0.5,
    "a stadium": 0.5,
    "a park": 0.35,
    "a living room": 0.15,
    "a beach": 0.15,
}
"""Fraction of the lamps that a place has; the others have none."""
_LAMPS = np.array([(1.0, 0.78, 0.45), (1.0, 0.88, 0.7), (0.75, 0.85, 1.0), (1.0, 0.5, 0.35)])
_PLACES: dict[str, Callable[[Canvas, Mood], None]] = {
    "a city street": paint_street,
    "a park": paint_park,
    "a beach": paint_beach,
    "an office": paint_office,
    "a kitchen": paint_kitchen,
    "a living room": paint_living_room,
    "a studio": paint_studio,
    "a forest": paint_forest,
    "a stadium": paint_stadium,
    "a market": paint_market,
    "a station": paint_station,
    "a mountain meadow": paint_meadow,
}
