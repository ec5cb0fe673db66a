"""Shared parts of the painted places: moods, skies, trees, varied colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.generation.renderer.canvas import Canvas, Colour
from ml.generation.renderer.noise import fractal_image


@dataclass(frozen=True)
class Mood:
    """Effect of a light on a place: sky colours (top, horizon) and gains of the finished image."""

    sky: tuple[Colour, Colour]
    gain: tuple[float, float, float]
    lamps: float


def jitter(rng: np.random.Generator, colour: Colour, amount: float = 10.0) -> np.ndarray:
    """Return a colour near `colour`, mostly lighter or darker, (3,) float64 in 0 to 255.

    Args:
        rng: source of chance.
        colour: sRGB, 0 to 255.
        amount: standard deviation of the change.

    Returns:
        The colour.
    """
    base = np.asarray(colour, np.float64)
    shade = (
        base * rng.normal(1.0, 0.06)
        + rng.normal(0.0, 0.6 * amount)
        + rng.normal(0.0, 0.5 * amount, 3)
    )
    return np.minimum(np.maximum(shade, 6.0), 250.0)


def pick_colour(
    rng: np.random.Generator, colours: list[tuple[int, int, int]], amount: float = 8.0
) -> np.ndarray:
    """Return one of several colours, varied.

    Args:
        rng: source of chance.
        colours: sRGB, 0 to 255.
        amount: standard deviation of the change.

    Returns:
        (3,) float64 sRGB.
    """
    return jitter(rng, colours[rng.integers(len(colours))], amount)


def paint_sky(canvas: Canvas, mood: Mood, clouds: float) -> None:
    """Paint the sky down to the horizon; its lower colour becomes the haze.

    Args:
        canvas: what is painted on.
        mood: the sky's colours.
        clouds: 0 clear to 1.
    """
    top, low = np.asarray(mood.sky[0], float), np.asarray(mood.sky[1], float)
    canvas.haze = low
    canvas.gradient(0, canvas.horizon + 2, top, low)
    rows = int(np.clip(canvas.horizon, 0, canvas.height))
    if rows < 4 or clouds <= 0:
        return
    noise = fractal_image(
        rows, canvas.width, canvas.width * 0.25, 5, float(canvas.rng.integers(9999)), 2.2
    )
    cover = np.clip((noise - 0.5) * 3.2 + canvas.rng.uniform(-0.4, 0.3), 0, 1)[..., None] * clouds
    white = np.clip(low * 1.08 + 14, 0, 255)
    band = canvas.pixels[:rows] * (1 - cover) + white * cover
    canvas.pixels[:rows] = np.clip(band, 0, 255).astype(np.uint8)


def paint_tree(canvas: Canvas, x: float, z: float, height: float, leaf: Colour) -> None:
    """Paint a tree of blobs, lighter towards the top.

    Args:
        canvas: what is painted on.
        x: place, metres to the right.
        z: distance, metres.
        height: metres.
        leaf: sRGB colour of the leaves.
    """
    rng = canvas.rng
    trunk = jitter(rng, (86, 70, 56))
    canvas.line((x, 0, z), (x, height * 0.6, z), 0.12 + 0.03 * height, trunk)
    crown = height * rng.uniform(0.26, 0.36)
    offsets = rng.normal(0.0, 1.0, (14, 2)) * (crown * 0.55, crown * 0.5)
    for index in np.argsort(offsets[:, 1]):
        dx, dy = offsets[index]
        light = 0.72 + 0.4 * np.clip(dy / crown + 0.5, 0, 1)
        colour = jitter(rng, np.asarray(leaf) * light, 6)
        canvas.blob((x + dx, height * 0.72 + dy, z), crown * rng.uniform(0.35, 0.6), colour, 0.85)


LEAVES = [(78, 104, 52), (92, 116, 60), (66, 92, 56), (110, 122, 64), (138, 118, 58)]


def paint_trees(canvas: Canvas, count: int, near: float, far: float, spread: float) -> None:
    """Paint several trees, the farthest first.

    Args:
        canvas: what is painted on.
        count: number of trees.
        near: smallest distance, metres.
        far: largest distance, metres.
        spread: width of their strip against its distance.
    """
    rng = canvas.rng
    depth = np.sort(rng.uniform(near, far, count))[::-1]
    for z in depth:
        paint_tree(
            canvas,
            rng.uniform(-spread, spread) * z * 0.5,
            z,
            rng.uniform(4.5, 9.0),
            pick_colour(rng, LEAVES),
        )
