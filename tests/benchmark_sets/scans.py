"""Feng et al. and NoW in their own layouts, from a smooth face whose surface is exactly known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ml.benchmarks.generated import scans as generated
from ml.benchmarks.generated.scans import (
    Scan,
    ScanImage,
    picked_points,
    pickled_dictionary,
    write_obj,
)
from tests.benchmark_sets.boxes import noise

__all__ = ["picked_points", "pickled_dictionary", "write_obj"]

BOX = {"left": 20.0, "top": 10.0, "right": 120.0, "bottom": 140.0}
NOW_IMAGES = {
    "val": (
        "FaMoS_1_TA/multiview_neutral/IMG_1.jpg",
        "FaMoS_1_TA/multiview_occlusions/IMG_2.jpg",
        "FaMoS_2_TA/selfie/IMG_3.jpg",
    ),
    "test": ("FaMoS_3_TA/selfie/IMG_4.jpg",),
}
FENG_IMAGES = {"HQ": ("F1001_01.jpg", "m1002_01.JPG"), "LQ": ("f1001_02.png",)}
_N = 41
#: Grid positions of the seven landmarks: eye corners, nose, corners of the mouth.
_SEVEN_MM = ((-42, 30), (-16, 30), (16, 30), (42, 30), (0, -10), (-24, -34), (24, -34))


def face_mesh() -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) mm, (F, 3): half an ellipsoid over a grid, with a ridge for the nose."""
    x, y = np.meshgrid(np.linspace(-60, 60, _N), np.linspace(-80, 80, _N))
    z = 70 * np.sqrt(1 - (x / 90) ** 2 - (y / 120) ** 2) + 12 * np.exp(-((x / 9) ** 2))
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    corner = (np.arange(_N - 1)[:, None] * _N + np.arange(_N - 1)).reshape(-1)
    upper = np.stack([corner, corner + 1, corner + _N + 1], axis=1)
    lower = np.stack([corner, corner + _N + 1, corner + _N], axis=1)
    return vertices, np.concatenate([upper, lower])


def seven(vertices: np.ndarray) -> np.ndarray:
    """(7, 3): the vertices nearest to the landmarks' places."""
    flat, _ = face_mesh()
    places = np.array(_SEVEN_MM)
    index = [np.linalg.norm(flat[:, :2] - place, axis=1).argmin() for place in places]
    return vertices[index]


def write_now(root: Path) -> Path:
    vertices, faces = face_mesh()
    scan = Scan(vertices, faces, seven(vertices))
    for subset in ("val", "test"):
        lines = NOW_IMAGES[subset]
        images = [
            ScanImage(line, noise(150, 160, seed), np.array(list(BOX.values())))
            for seed, line in enumerate(lines)
        ]
        subjects = {line.split("/")[0] for line in lines} if subset == "val" else ()
        generated.write_now(root, images, dict.fromkeys(sorted(subjects), scan), subset)
    return root


def write_feng(root: Path) -> Path:
    vertices, faces = face_mesh()
    scan = Scan(vertices, faces, seven(vertices))
    images = [
        ScanImage(f"{quality}/{name}", noise(), np.zeros(4))
        for quality, names in FENG_IMAGES.items()
        for name in names
    ]
    return generated.write_feng(root, images, {"F1001": scan, "M1002": scan})
