"""COCO-17 to OpenPose-18, and the coloured skeleton image that pose adapters are trained on."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

OPENPOSE_FROM_COCO: Final = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""COCO index of each OpenPose joint; -1 is the neck, the mean of the shoulders."""

LIMBS: Final = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Joint pairs of the 17 limbs, 0-based OpenPose indices, in drawing order."""

PALETTE: Final = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
"""Colour of joint i, and of limb i at 60 %."""

MIN_CONFIDENCE: Final = 0.3
JOINT_RADIUS_PX: Final = 8.0
_REFERENCE_PX: Final = 1024
"""Shorter side of the images on which the released adapters were trained with that radius."""
LIMB_BRIGHTNESS: Final = 0.6


def to_openpose(keypoints: np.ndarray) -> np.ndarray:
    """Reorder COCO-17 keypoints to OpenPose-18.

    Args:
        keypoints: (..., 17, 3) x px, y px, confidence; COCO order.

    Returns:
        (..., 18, 3) float32 in OpenPose order; the neck is the mean of both shoulders in x, y
        and confidence, as the adapters expect: with one shoulder unseen it may still be drawn.

    Raises:
        ValueError: The last two dimensions are not (17, 3).
    """
    keypoints = np.asarray(keypoints, dtype=np.float32)
    if keypoints.shape[-2:] != (17, 3):
        raise ValueError(
            "keypoints: last dimensions must be (17, 3) (COCO joints; x, y, confidence), got "
            f"{keypoints.shape}"
        )
    neck = keypoints[..., 5:7, :].mean(axis=-2, keepdims=True)
    return np.concatenate([keypoints, neck], axis=-2)[..., list(OPENPOSE_FROM_COCO), :]


def joint_radius(width: int, height: int) -> float:
    """Return radius of joints for an image of a given size, as large a part of it as in training.

    Args:
        width: px.
        height: px.

    Returns:
        8 px at a shorter side of 1024 px, in proportion elsewhere, at least 1 px.
    """
    return max(1.0, JOINT_RADIUS_PX * min(width, height) / _REFERENCE_PX)


def draw_openpose(
    keypoints: np.ndarray,
    width: int,
    height: int,
    *,
    joint_radius_px: float = JOINT_RADIUS_PX,
    reverse_channels: bool = False,
) -> np.ndarray:
    """Draw the skeletons of one image as T2I-Adapter and ControlNet expect them.

    Limbs are filled ellipses at 60 % of their colour, joints full discs; a limb whose end has a
    confidence below 0.3 is left out, and so is a joint that no drawn limb uses.

    Args:
        keypoints: (P, 17, 3) x px, y px, confidence; COCO order; P may be 0.
        width: Image width, px.
        height: Image height, px.
        joint_radius_px: Radius of joints and half width of limbs; 8 at about 1024 px.
        reverse_channels: Swap red and blue. The released adapters were fed so: their first limb
            is blue.

    Returns:
        (height, width, 3) uint8 RGB on black.

    Source:
        Paper 3.1; palette, limb order, 60 % limbs and the averaged neck are those that the
        released pose adapters were trained with.
    """
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    for person in to_openpose(np.asarray(keypoints, np.float32).reshape(-1, 17, 3)):
        _draw_person(canvas, person, joint_radius_px)
    return np.ascontiguousarray(canvas[..., ::-1]) if reverse_channels else canvas


def _draw_person(canvas: np.ndarray, joints: np.ndarray, radius_px: float) -> None:
    drawn = [
        index
        for index, (first, second) in enumerate(LIMBS)
        if min(joints[first, 2], joints[second, 2]) >= MIN_CONFIDENCE
    ]
    for index in drawn:
        first, second = LIMBS[index]
        polygon = _ellipse(joints[first, :2], joints[second, :2], radius_px)
        colour = [LIMB_BRIGHTNESS * channel for channel in PALETTE[index]]
        cv2.fillConvexPoly(canvas, polygon, colour)
    for joint in sorted({end for index in drawn for end in LIMBS[index]}):
        centre = (round(float(joints[joint, 0])), round(float(joints[joint, 1])))
        cv2.circle(canvas, centre, max(1, round(radius_px)), PALETTE[joint], thickness=-1)


def _ellipse(start: np.ndarray, end: np.ndarray, half_width: float) -> np.ndarray:
    """Return (N, 2) int32 outline of the ellipse from one joint to the other."""
    middle = (start + end) / 2
    along = (end - start) / 2
    length = float(np.linalg.norm(along))
    across = np.array([-along[1], along[0]]) * (half_width / length if length > 0 else 0.0)
    angles = np.linspace(0.0, 2 * np.pi, 60, endpoint=False)
    outline = middle + np.cos(angles)[:, None] * along + np.sin(angles)[:, None] * across
    return np.rint(outline).astype(np.int32)
