"""Upright head crops, rotated in the image plane about the centre of the skull."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ml.imaging.letterbox import PADDING_VALUE

_MIN_LENGTH = 0.1
"""A head's upward axis that points so nearly at or away from the camera has no direction here."""


@dataclass(frozen=True)
class AlignedHead:
    """A square image of an upright head.

    Attributes:
        image_rgb: (S, S, 3) uint8 RGB; grey where it reaches over the original's border.
        matrix: (2, 3) float64 from pixels of the original to pixels of this image.
    """

    image_rgb: np.ndarray
    matrix: np.ndarray


def tilt_rad(rotation: np.ndarray) -> float:
    """Return how far a head leans in the image plane, clockwise as seen.

    The roll of the Euler angles is a turn about the nose and says nothing about this at high yaw;
    here it is the direction in which the top of the head points, at any yaw.

    Args:
        rotation: (3, 3) FLAME axes to image axes.

    Returns:
        Angle, rad; for a head that looks straight up or down, that of its left-to-right axis.
    """
    x_axis, y_axis = rotation[:2, 0], rotation[:2, 1]
    if np.hypot(*y_axis) >= _MIN_LENGTH:
        return float(np.arctan2(y_axis[0], -y_axis[1]))
    return float(np.arctan2(x_axis[1], x_axis[0]))


def align_head(
    image_rgb: np.ndarray,
    points_px: np.ndarray,
    skull_centre_px: np.ndarray,
    rotation: np.ndarray,
    size: int | None = None,
    margin: float = 0.1,
) -> AlignedHead:
    """Cut out one head, upright.

    Args:
        image_rgb: (H, W, 3) uint8 RGB; not changed.
        points_px: (V, 2) points of the head that have to be inside, image px.
        skull_centre_px: (2,) point to turn about, image px.
        rotation: (3, 3) FLAME axes to image axes.
        size: side of the result, px; the head's size in the image by default.
        margin: added on each side, as a fraction of the points' box.

    Returns:
        The image and its alignment.

    Raises:
        ValueError: size is not positive.
    """
    if size is not None and size < 1:
        raise ValueError(f"aligned heads: size must be at least 1 px, got {size}")
    angle = tilt_rad(rotation)
    cosine, sine = np.cos(angle), np.sin(angle)
    upright = np.array([[cosine, sine], [-sine, cosine]])
    turned = (points_px - skull_centre_px) @ upright.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    side = max(1.0, float((high - low).max()) * (1 + 2 * margin))
    corner = (low + high) / 2 - side / 2
    whole = int(np.ceil(side))
    matrix = np.column_stack([upright, -upright @ skull_centre_px - corner]) * (whole / side)
    crop = _warp(image_rgb, matrix, whole)
    if size is not None and size != whole:
        # Enlarged from the original; reduced by averaging, since sampling would alias.
        matrix = matrix * (size / whole)
        if size < whole:
            crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        else:
            crop = _warp(image_rgb, matrix, size)
    return AlignedHead(np.asarray(crop, np.uint8), matrix)


def _warp(image: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Warp with pixel borders at whole numbers; OpenCV has their middles there."""
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    grey = (PADDING_VALUE,) * 3
    return cv2.warpAffine(image, shifted, (side, side), flags=cv2.INTER_LINEAR, borderValue=grey)
