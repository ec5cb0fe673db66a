"""FLAME's frame for MakeHuman's mesh: metres, and where the origin lies."""

from __future__ import annotations

from typing import Final

import numpy as np

from ml.flame.open_head.source import FloatArray

ORIGIN_DM: Final = np.array([0.0, 7.10, 0.965])
"""Origin of the head model in MakeHuman's coordinates: the eyes of the mean head lie at about
y = 18 mm and z = 28 mm, as FLAME's do."""


def to_metres(points_dm: FloatArray) -> FloatArray:
    """Return points (..., 3) of MakeHuman's frame in FLAME's."""
    return 0.1 * (points_dm - ORIGIN_DM)
