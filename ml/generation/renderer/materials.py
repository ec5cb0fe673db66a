"""The material table: one row of numbers per surface, read by the shading kernel.

Colours are linear RGB in [0, 1]; `srgb` turns a display colour into one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ml.captions.scene import PATTERNS
from ml.imaging.rasterizer import Float32Array

PLAIN, SKIN, CLOTH, HAIR, EYE, GLASS, LENS = range(7)
"""Kinds of material."""

KIND, RED, RED2, PATTERN, SCALE, SPECULAR, GLOSS, SEED, BUMP = 0, 1, 4, 7, 8, 9, 10, 11, 12
"""Columns every kind shares: kind, first and second colour (three columns each), pattern and its
period in metres, highlight strength and exponent, noise seed, depth of folds or pores."""
AMOUNT, AMOUNT2, AMOUNT3, RED3 = 13, 14, 15, 16
"""Columns whose meaning depends on the kind.

skin: beard, brow strength, blotchiness, hair colour. cloth: half width of an open front in
metres, 1 for a button band, stretch of the folds, colour under the front. hair: contrast of
strands, curliness, transparency of the edge, colour of the tips.
"""
FIBRE, FOLD_ACROSS, FOLD_ALONG, FADE = 19, 20, 21, 22
"""cloth: weave contrast, folds per metre across and along, wear. skin: freckles in FIBRE."""
OPENING, BUTTONS = AMOUNT, AMOUNT2
"""cloth."""
BEARD, BROW, BLOTCHES, FRECKLES = AMOUNT, AMOUNT2, AMOUNT3, FIBRE
"""skin."""
CONTRAST, CURL = AMOUNT, AMOUNT2
"""hair."""
NUM_COLUMNS = 24

MONK_TONES_SRGB: tuple[tuple[int, int, int], ...] = (
    (246, 237, 228),
    (243, 231, 219),
    (247, 234, 208),
    (234, 218, 186),
    (215, 189, 150),
    (160, 126, 86),
    (130, 92, 67),
    (96, 65, 52),
    (58, 49, 42),
    (41, 36, 32),
)
"""The ten swatches of the Monk Skin Tone scale (E. Monk, 2019; skintone.google)."""


def srgb(colour: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return linear RGB in [0, 1] of a display colour in [0, 255].

    Args:
        colour: (..., 3) sRGB values, 0 to 255.

    Returns:
        (..., 3) float64 linear values.
    """
    value = np.asarray(colour, np.float64) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def skin_albedo(tone: int) -> np.ndarray:
    """Return linear albedo of a Monk tone.

    The swatches are flat display colours: the palest are nearly white and the darkest nearly
    black, so they are warmed and drawn slightly towards the middle, as skin under light looks.

    Args:
        tone: 1 (lightest) to 10 (darkest).

    Returns:
        (3,) linear RGB.

    Raises:
        ValueError: the tone is not on the scale.
    """
    if not 1 <= tone <= len(MONK_TONES_SRGB):
        raise ValueError(f"skin tone: expected 1 to {len(MONK_TONES_SRGB)} (Monk), got {tone}")
    albedo = srgb(MONK_TONES_SRGB[tone - 1])
    if tone <= 4:
        warmth = np.array([0.90, 0.695, 0.60])
    elif tone == 5:
        warmth = np.array([0.98, 0.78, 0.66])
    else:
        warmth = np.array([1.15, 0.92, 0.76])
    lift = np.array([0.022, 0.012, 0.007]) * (1.0 if tone <= 6 else 1.5)
    return np.clip(albedo * warmth * 0.86 + lift, 0.0, 0.9)


class MaterialTable:
    """Collects rows while a scene is built."""

    def __init__(self) -> None:
        """Start empty."""
        self._rows: list[np.ndarray] = []

    def add(
        self,
        kind: int,
        colour: Sequence[float] | np.ndarray,
        *,
        colour2: Sequence[float] | np.ndarray | None = None,
        colour3: Sequence[float] | np.ndarray | None = None,
        pattern: str = "plain",
        scale: float = 0.05,
        specular: float = 0.05,
        gloss: float = 20.0,
        seed: float = 0.0,
        bump: float = 0.0,
        amounts: Sequence[float] = (0.0, 0.0, 0.0),
        fibre: float = 0.0,
        folds: tuple[float, float] = (8.0, 4.0),
        fade: float = 0.0,
    ) -> int:
        """Append a material.

        Args:
            kind: one of the kinds above.
            colour: linear RGB.
            colour2: second colour of a pattern, or the lips.
            colour3: third colour, see `RED3`.
            pattern: word of the caption vocabulary.
            scale: period of the pattern, metres.
            specular: strength of highlights.
            gloss: exponent of highlights.
            seed: offset of all noise.
            bump: depth of folds or pores.
            amounts: the three kind-specific amounts.
            fibre: contrast of the weave, or freckles.
            folds: folds per metre across and along.
            fade: wear of the colour.

        Returns:
            The row's index.
        """
        row = np.zeros(NUM_COLUMNS, np.float32)
        row[KIND] = kind
        row[RED : RED + 3] = colour
        row[RED2 : RED2 + 3] = colour if colour2 is None else colour2
        row[RED3 : RED3 + 3] = colour if colour3 is None else colour3
        row[PATTERN] = PATTERNS.index(pattern)
        row[[SCALE, SPECULAR, GLOSS, SEED, BUMP]] = scale, specular, gloss, seed, bump
        row[AMOUNT : AMOUNT + 3] = amounts
        row[[FIBRE, FOLD_ACROSS, FOLD_ALONG, FADE]] = fibre, *folds, fade
        self._rows.append(row)
        return len(self._rows) - 1

    def set(self, row: int, column: int, value: float) -> None:
        """Change one number of a material.

        Args:
            row: the material.
            column: one of the column constants.
            value: the new value.
        """
        self._rows[row][column] = value

    def array(self) -> Float32Array:
        """Return the table, (M, 24) float32."""
        return np.stack(self._rows) if self._rows else np.zeros((0, NUM_COLUMNS), np.float32)
