"""Display colours of the caption's words."""

from __future__ import annotations

import numpy as np

from ml.generation.renderer.materials import srgb

CLOTH_SRGB: dict[str, tuple[int, int, int]] = {
    "black": (34, 34, 37),
    "white": (226, 224, 219),
    "grey": (128, 129, 131),
    "navy": (36, 45, 72),
    "blue": (52, 87, 146),
    "light blue": (150, 180, 208),
    "red": (166, 42, 42),
    "burgundy": (100, 32, 44),
    "green": (58, 108, 74),
    "olive": (98, 98, 60),
    "yellow": (218, 180, 78),
    "orange": (206, 118, 52),
    "brown": (106, 76, 54),
    "beige": (202, 184, 156),
    "pink": (214, 150, 160),
    "purple": (102, 74, 128),
}
HAIR_SRGB: dict[str, tuple[int, int, int]] = {
    "black": (26, 23, 22),
    "dark brown": (52, 37, 28),
    "brown": (88, 61, 42),
    "auburn": (118, 62, 38),
    "blond": (188, 150, 96),
    "grey": (142, 139, 135),
    "white": (214, 210, 202),
}
IRIS_SRGB: tuple[tuple[int, int, int], ...] = (
    (74, 46, 28),
    (96, 62, 36),
    (112, 88, 52),
    (84, 110, 84),
    (88, 118, 142),
    (112, 130, 140),
)


def cloth_colour(word: str, rng: np.random.Generator) -> np.ndarray:
    """Return linear RGB of a colour word, slightly different each time.

    Args:
        word: one of `ml.captions.scene.COLOURS`.
        rng: draws the shade.

    Returns:
        (3,) linear RGB.

    Raises:
        ValueError: the word is unknown.
    """
    return _shade(CLOTH_SRGB, word, "cloth colour", rng)


def hair_colour(word: str, rng: np.random.Generator) -> np.ndarray:
    """Return linear RGB of a hair colour word, slightly different each time.

    Args:
        word: one of `ml.captions.scene.HAIR_COLOURS`.
        rng: draws the shade.

    Returns:
        (3,) linear RGB.

    Raises:
        ValueError: the word is unknown.
    """
    return _shade(HAIR_SRGB, word, "hair colour", rng)


def companion_colour(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a second colour for a pattern that goes with `colour`: lighter, darker or near grey.

    Args:
        colour: (3,) linear RGB.
        rng: draws which.

    Returns:
        (3,) linear RGB.
    """
    light = float(colour.mean())
    if light > 0.25 or (light > 0.08 and rng.random() < 0.4):
        return np.clip(colour * rng.uniform(0.12, 0.4) + 0.008, 0.0, 1.0)
    if rng.random() < 0.55:
        return srgb((220, 217, 209)) * rng.uniform(0.75, 1.0)
    return np.clip(colour * rng.uniform(2.2, 4.0) + 0.05, 0.0, 0.8)


def _shade(
    table: dict[str, tuple[int, int, int]], word: str, what: str, rng: np.random.Generator
) -> np.ndarray:
    if word not in table:
        raise ValueError(f"{what}: expected one of {sorted(table)}, got {word!r}")
    base = np.array(table[word], np.float64) * rng.normal(1.0, 0.06) + rng.normal(0.0, 4.0, 3)
    return srgb(np.clip(base, 8, 245))
