"""FDDB and WIDER FACE in their own layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ml.benchmarks.generated import boxes as generated
from ml.imaging.boxes import ellipse_boxes
from ml.imaging.io import encode_jpeg


def noise(width: int = 200, height: int = 160, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, width: int = 200, height: int = 160, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(noise(width, height, seed)))


# name -> rows: half axes, angle, centre
FDDB_FACES = {
    "2002/08/11/big/img_591": [(40.0, 30.0, 1.265839, 90.0, 80.0)],
    "2002/08/26/big/img_265": [(30.0, 20.0, 0.0, 50.0, 50.0), (24.0, 18.0, 1.5, 140.0, 90.0)],
    "2003/01/17/big/img_7": [(20.0, 26.0, -0.4, 100.0, 70.0)],
}


def write_fddb(root: Path, faces=FDDB_FACES, images: bool = True) -> Path:
    """All images but the last in the first fold, the last in the second; the others are empty."""
    names = list(faces)
    return generated.write_fddb(
        root,
        [
            generated.FddbImage(
                name, 1 if name in names[:-1] else 2, faces[name], noise() if images else None
            )
            for name in names
        ],
    )


def fddb_boxes(name: str, faces=FDDB_FACES) -> np.ndarray:
    return ellipse_boxes(np.array(faces[name]))


# event -> image -> rows x y w h, invalid; the last rows stand for no face
WIDER_FACES = {
    "0--Parade": {
        "0_Parade_marchingband_1_465": [
            (10, 10, 40, 50, 0),
            (100, 20, 30, 40, 0),
            (150, 100, 8, 9, 0),
        ],
        "0_Parade_Parade_0_317": [(20, 20, 60, 60, 1), (120, 60, 0, 1, 0)],
    },
    "2--Demonstration": {"2_Demonstration_Protesters_2_231": [(0, 0, 0, 0, 0)]},
}
# 1-based rows that each difficulty keeps
WIDER_KEPT = {
    "easy": {"0_Parade_marchingband_1_465": [1]},
    "medium": {"0_Parade_marchingband_1_465": [1, 2]},
    "hard": {"0_Parade_marchingband_1_465": [1, 2, 3]},
}


def write_wider(root: Path, faces=WIDER_FACES, kept=WIDER_KEPT, images=True, mat=True) -> Path:
    return generated.write_wider(
        root,
        [
            generated.WiderImage(
                event,
                file,
                rows,
                {difficulty: of_all.get(file, []) for difficulty, of_all in kept.items()},
                noise() if images else None,
            )
            for event, files in faces.items()
            for file, rows in files.items()
        ],
        mat,
    )
