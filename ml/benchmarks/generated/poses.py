"""AFLW2000-3D and BIWI in their own layouts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.benchmarks.generated.images import write_image
from ml.flame.rotation import FRONTAL
from ml.records.atomic import write_bytes, write_text

AFLW_PX = 450
BIWI_WIDTH, BIWI_HEIGHT = 640, 480
BIWI_MATRIX = np.array([[517.679, 0.0, 320.0], [0.0, 517.679, 240.5], [0.0, 0.0, 1.0]])
"""Intrinsics of the colour camera, px, and its shift from the depth camera, mm."""
BIWI_SHIFT_MM = np.array([24.7, -0.9, 2.6])


@dataclass(frozen=True)
class AflwHead:
    """An image of AFLW2000-3D.

    Attributes:
        name: such as `image00002`.
        image_rgb: (450, 450, 3) uint8 RGB.
        euler_deg: (3,) pitch, yaw, roll.
        landmarks_px: (68, 3), iBUG order.
    """

    name: str
    image_rgb: np.ndarray
    euler_deg: np.ndarray
    landmarks_px: np.ndarray


def write_aflw2000(root: Path, heads: Iterable[AflwHead]) -> Path:
    """Write a .jpg and a .mat an image, with every variable of the published files.

    Args:
        root: receives the folder `AFLW2000`.
        heads: the images.

    Returns:
        `root`.
    """
    import io

    from scipy.io import savemat

    folder = root / "AFLW2000"
    for head in heads:
        write_image(folder / f"{head.name}.jpg", head.image_rgb)
        middle = head.landmarks_px[:, :2].mean(axis=0)
        pose = np.array([[*np.radians(head.euler_deg), *middle, -60.0, 1e-3]])
        points = head.landmarks_px[:21, :2].T.copy()
        points[:, 5] = -1
        file = io.BytesIO()
        savemat(
            file,
            {
                "Pose_Para": pose.astype(np.float32),
                "pt3d_68": head.landmarks_px.T.astype(np.float32),
                "pt2d": points,
                "Shape_Para": np.zeros((199, 1), np.float32),
                "Exp_Para": np.zeros((29, 1), np.float32),
                "Tex_Para": np.zeros((199, 1), np.float32),
                "Color_Para": np.array([[1, 1, 1, 0, 0, 0, 1.0]]),
                "Illum_Para": np.zeros((1, 10)),
                "roi": np.array([[1, 1, AFLW_PX, AFLW_PX]]),
            },
        )
        # scipy writes the date into the first 116 bytes
        text = b"MATLAB 5.0 MAT-file".ljust(116)
        write_bytes(folder / f"{head.name}.mat", text + file.getvalue()[116:])
    return root


@dataclass(frozen=True)
class BiwiFrame:
    """A frame of BIWI.

    Attributes:
        sequence: two digits.
        number: of the frame.
        image_rgb: (480, 640, 3) uint8 RGB.
        rotation: (3, 3) FLAME axes to image axes.
        centre_mm: (3,) the head's centre for the depth camera.
    """

    sequence: str
    number: int
    image_rgb: np.ndarray
    rotation: np.ndarray
    centre_mm: np.ndarray


def biwi_centre_mm(centre_px: np.ndarray, depth_mm: float = 900.0) -> np.ndarray:
    """Return the point at a depth that appears at a place of the colour image; (3,) mm."""
    ray = np.linalg.inv(BIWI_MATRIX) @ np.array([*centre_px, 1.0])
    return ray * (depth_mm + BIWI_SHIFT_MM[2]) - BIWI_SHIFT_MM


def write_biwi(root: Path, frames: Iterable[BiwiFrame]) -> Path:
    """Write frames, poses and calibrations.

    Args:
        root: receives the folder `hpdb`.
        frames: the frames; numbers may have gaps, as the set's have.

    Returns:
        `root`.
    """
    for frame in frames:
        folder = root / "hpdb" / frame.sequence
        if not (folder / "rgb.cal").is_file():
            _write_calibrations(folder)
        stem = f"frame_{frame.number:05d}"
        pose = f"{_rows(frame.rotation @ FRONTAL)}\n{_rows(np.array(frame.centre_mm))}"
        write_text(folder / f"{stem}_pose.txt", pose)
        write_image(folder / f"{stem}_rgb.png", frame.image_rgb)
        write_bytes(folder / f"{stem}_depth.bin", bytes(8))
    return root


def _write_calibrations(folder: Path) -> None:
    for camera in ("rgb", "depth"):
        shift = BIWI_SHIFT_MM if camera == "rgb" else np.zeros(3)
        blocks = [BIWI_MATRIX, np.zeros((1, 4)), np.eye(3), shift[None]]
        write_text(folder / f"{camera}.cal", "\n".join(_rows(block) for block in blocks))


def _rows(matrix: np.ndarray) -> str:
    return "".join(" ".join(f"{v:.7g}" for v in row) + " \n" for row in np.atleast_2d(matrix))
