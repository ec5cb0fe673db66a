"""Named expressions of the procedural head."""

from __future__ import annotations

import numpy as np

from ml.flame.procedural.anatomy import Anatomy, Field, eyelid_closing
from ml.flame.procedural.surface import smooth_step


def expression_controls(a: Anatomy) -> list[Field]:
    """Return named displacements (V, 3), mm, symmetric.

    Left and right halves are separated later.
    """
    x, y = a.x, a.y
    lids = eyelid_closing(a)
    mouth = a.at(0, -47, 13.0, 2.0, 15.0)
    corner = a.at(26, -47, 10.0, 1.0, 12.0)
    lower = a.jaw
    upper_lip = a.at(0, -41, 8.0, 2.6, 22.0) * (
        1 - np.where(a.at(0, -47, 16, 2.2) > 0.05, lower, 0)
    )
    lower_lip = a.at(0, -55, 8.5, 2.4, 20.0) * lower
    cheek = a.at(40, -14, 12.0, 1.1, 5.0)
    inner_brow = a.at(15, 38, 9.0, 1.2, 20.0)
    outer_brow = a.at(42, 38, 9.0, 1.3, 5.0)
    brow = a.at(28, 38, 9.5, 2.4, 5.0)
    red = np.maximum(a.at(0, -47, 6.5, 3.0, 25.0), 0)
    side = smooth_step(x, 6.0, 24.0)
    return [
        ("mouth open", a.shift(lower, y=-2.8, z=-0.8)),
        ("smile", a.move(corner, 2.6, 2.6, -1.6) + a.move(cheek, 0.6, 1.3, 1.0)
         + a.move(mouth * side, 1.2, 0.8, -1.0) + lids["lower"] * 0.35),
        ("blink", lids["upper"] * 1.9 + lids["lower"] * 0.25),
        ("brows up", a.shift(brow, y=2.6) + a.shift(a.at(20, 56, 12.0, 3.0), y=1.0)
         - lids["upper"] * 0.35),
        ("lips pursed", a.move(corner, -3.0, 0, 1.2) + a.shift(mouth, z=1.8)),
        ("frown", a.move(inner_brow, -1.4, -1.9, 0.7) + a.move(outer_brow, 0, -0.7, 0.2)),
        ("squint", lids["lower"] * 1.0 + lids["upper"] * 0.7 + a.move(cheek, 0, 1.1, 0.5)
         + a.shift(a.at(36, 30, 6.0, 1.8), y=-0.7)),
        ("corners down", a.move(corner, 0.6, -2.4, -0.3)),
        ("upper lip up", a.shift(upper_lip, y=1.7, z=0.5)),
        ("lower lip down", a.shift(lower_lip, y=-2.0, z=0.5)),
        ("mouth wide", a.move(corner, 2.8, 0.2, -1.2) + a.move(mouth * side, 1.4, 0, -0.8)),
        ("inner brows up", a.shift(inner_brow, y=2.2)),
        ("outer brows up", a.shift(outer_brow, y=2.0)),
        ("nose wrinkled", a.shift(a.at(11, -14, 8.0, 1.0, 35.0), y=1.3, z=0.4)
         + a.shift(a.at(9, 14, 6.0, 1.0, 30.0), y=-0.5, z=0.7)),
        ("cheeks blown", a.move(a.ball((42, -44, 28), 17.0), 3.0, 0, 1.6) * (1 - red)[:, None]),
        ("cheeks hollow", a.move(a.ball((42, -40, 26), 13.0), -2.0, 0, -0.8)),
        ("lips forward", a.shift(mouth, z=2.4)),
        ("lips pressed", a.shift(upper_lip, y=-0.8, z=-1.0) + a.shift(lower_lip, y=0.8, z=-1.1)),
        ("jaw forward", a.shift(lower * smooth_step(y, -30.0, -60.0), z=2.2)),
        ("chin up", a.shift(a.at(0, -70, 11.0, 1.5, 20.0) * lower, y=1.6, z=0.8)),
        ("nostrils wide", a.move(a.at(13.5, -20, 5.0, 1.0, 42.0), 1.3, 0.3, 0.0)),
        ("dimples", a.move(a.at(32, -46, 5.0, 1.0, 10.0), 0.6, 0, -1.3)),
        ("cheeks up", a.move(cheek, 0, 1.9, 0.8)),
        ("sneer", a.shift(a.at(12, -33, 8.0, 1.4, 30.0) * (1 - lower), y=1.4, z=0.3)),
        ("lips rolled in", a.shift(red, z=-1.5)),
        ("wide eyes", lids["upper"] * -0.9 + lids["lower"] * -0.5 + a.shift(brow, y=0.7)),
        ("ears back", a.shift(a.ear, y=0.5, z=-0.8)),
        ("neck tense", a.move(a.ball((30, -125, -25), 20.0), 1.0, 0, 1.2)),
    ]  # fmt: skip
