"""AFLW2000-3D and BIWI in their own layouts, from exactly known heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat

from ml.benchmarks.conventions import FRONTAL, rotations_from_euler
from ml.imaging.io import encode_png
from tests.benchmark_sets.boxes import write_image

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
    folder = root / "AFLW2000"
    for seed, (name, angles) in enumerate(AFLW_HEADS.items()):
        write_image(folder / f"{name}.jpg", 450, 450, seed)
        landmarks = aflw_landmarks(name)
        pose = np.array([[*np.radians(angles), 225.0, 225.0, -60.0, 1e-3]])
        pt2d = landmarks[:21, :2].T.copy()
        pt2d[:, 5] = -1
        savemat(
            folder / f"{name}.mat",
            {
                "Pose_Para": pose.astype(np.float32),
                "pt3d_68": landmarks.T.astype(np.float32),
                "pt2d": pt2d,
                "Shape_Para": np.zeros((199, 1), np.float32),
                "Exp_Para": np.zeros((29, 1), np.float32),
                "Tex_Para": np.zeros((199, 1), np.float32),
                "Color_Para": np.array([[1, 1, 1, 0, 0, 0, 1.0]]),
                "Illum_Para": np.zeros((1, 10)),
                "roi": np.array([[1, 1, 450, 450]]),
            },
        )
    return root


# sequence -> frame -> pitch, yaw, roll in degrees; the first numbers are 3, and 5 is missing
BIWI_HEADS = {
    "01": {3: (0.0, 0.0, 0.0), 4: (-20.0, 30.0, 8.0), 6: (25.0, -60.0, -30.0)},
    "24": {3: (5.0, 10.0, -15.0)},
}
BIWI_CENTRE_MM = (40.0, -30.0, 900.0)
_K = np.array([[517.679, 0.0, 320.0], [0.0, 517.679, 240.5], [0.0, 0.0, 1.0]])
_T = np.array([24.7, -0.9, 2.6])


def biwi_centre_px() -> np.ndarray:
    x, y, z = _K @ (np.array(BIWI_CENTRE_MM) + _T)
    return np.array([x / z, y / z])


def _rows(matrix: np.ndarray) -> str:
    return "".join(" ".join(f"{v:.7g}" for v in row) + " \n" for row in np.atleast_2d(matrix))


def write_biwi(root: Path) -> Path:
    image = encode_png(np.full((480, 640, 3), 90, np.uint8))
    for sequence, frames in BIWI_HEADS.items():
        folder = root / "hpdb" / sequence
        folder.mkdir(parents=True)
        for camera in ("rgb", "depth"):
            shift = _T if camera == "rgb" else np.zeros(3)
            text = [_K, [[0.0, 0, 0, 0]], np.eye(3), shift[None]]
            (folder / f"{camera}.cal").write_text("\n".join(_rows(np.array(t)) for t in text))
        for number, angles in frames.items():
            rotation = rotations_from_euler(np.array([angles]))[0] @ FRONTAL
            stem = folder / f"frame_{number:05d}"
            stem.with_name(f"{stem.name}_pose.txt").write_text(
                f"{_rows(rotation)}\n{_rows(np.array(BIWI_CENTRE_MM))}"
            )
            stem.with_name(f"{stem.name}_rgb.png").write_bytes(image)
            stem.with_name(f"{stem.name}_depth.bin").write_bytes(bytes(8))
    return root
