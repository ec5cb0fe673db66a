"""AFLW2000-3D and BIWI in their own layouts, from exactly known heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ml.benchmarks.conventions import rotations_from_euler
from ml.benchmarks.generated import poses as generated
from tests.benchmark_sets.boxes import noise

# pitch, yaw, roll in degrees; of the last, the yaw is over 99 as written
AFLW_HEADS = {
    "image00002": (10.0, -20.0, 5.0),
    "image00004": (-15.0, 45.0, -10.0),
    "image00006": (3.0, 80.0, 20.0),
    "image00008": (0.0, -351.0, 0.0),
}
_TEMPLATE = np.random.default_rng(7).uniform([-70, -80, -60], [70, 80, 60], (68, 3))


def aflw_landmarks(name: str) -> np.ndarray:
    """(68, 3) px: a fixed cloud of points turned as the head is, about the image's middle."""
    rotation = rotations_from_euler(np.array([AFLW_HEADS[name]]))[0]
    return _TEMPLATE @ rotation.T + np.array([225.0, 225.0, 0.0])


def write_aflw2000(root: Path) -> Path:
    heads = [
        generated.AflwHead(name, noise(450, 450, seed), np.array(angles), aflw_landmarks(name))
        for seed, (name, angles) in enumerate(AFLW_HEADS.items())
    ]
    generated.write_aflw2000(root, heads)
    return root


# sequence -> frame -> pitch, yaw, roll in degrees; the first numbers are 3, and 5 is missing
BIWI_HEADS = {
    "01": {3: (0.0, 0.0, 0.0), 4: (-20.0, 30.0, 8.0), 6: (25.0, -60.0, -30.0)},
    "24": {3: (5.0, 10.0, -15.0)},
}
BIWI_CENTRE_MM = (40.0, -30.0, 900.0)


def biwi_centre_px() -> np.ndarray:
    """Where the depth camera's point appears in the colour image."""
    x, y, z = generated.BIWI_MATRIX @ (np.array(BIWI_CENTRE_MM) + generated.BIWI_SHIFT_MM)
    return np.array([x / z, y / z])


def write_biwi(root: Path) -> Path:
    image = np.full((480, 640, 3), 90, np.uint8)
    return generated.write_biwi(
        root,
        [
            generated.BiwiFrame(
                sequence,
                number,
                image,
                rotations_from_euler(np.array([angles]))[0],
                np.array(BIWI_CENTRE_MM),
            )
            for sequence, frames in BIWI_HEADS.items()
            for number, angles in frames.items()
        ],
    )
