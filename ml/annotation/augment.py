"""Augmentation of single-head crops, for inexact boxes and small heads.

Colour, blur and noise are those of whole images, see `ml.training_data.augmentation`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.records.config import Count, Fraction, NonNegative, StageConfig
from ml.training_data.augmentation import AugmentConfig, Similarity, change_look

Image = NDArray[np.uint8]

LOOK = AugmentConfig(colour=0.7, hue=6.0, blur=0.1, blur_sigma_px=1.5, noise=0.1, jpeg=0.05)
"""Weaker than for whole images: `low_resolution` covers small heads."""


class CropAugmentConfig(StageConfig):
    """Strength of every random change of a training crop; probabilities are per crop."""

    shift: Fraction = 0.06
    """Largest shift of the crop along each axis, as a fraction of the box's longer side."""
    zoom: NonNegative = 0.12
    """Largest relative change of the crop's side, as exp(+-zoom)."""
    rotation_deg: NonNegative = 20.0
    """Largest rotation in the image plane."""
    flip: Fraction = 0.5
    """Probability of mirroring."""
    low_resolution: Fraction = 0.5
    """Probability of downscaling and upscaling the crop, to imitate crops of small heads."""
    smallest_side_px: Count = 20
    """Smallest side of the downscaled crop, px."""
    occlusion: Fraction = 0.15
    """Probability of a patch of uniform colour over part of the crop."""
    occlusion_side: Fraction = 0.45
    """Largest side of the patch, as a fraction of the crop's side."""
    truncation: Fraction = 0.1
    """Probability of truncating the head, as at an image border."""
    truncation_fraction: Fraction = 0.4
    """Largest fraction of the head's box that is truncated."""
    look: AugmentConfig | None = LOOK
    """Photometric augmentation; only these fields of the class are used. None: no photometric
    changes."""


NO_AUGMENTATION = CropAugmentConfig(
    shift=0,
    zoom=0,
    rotation_deg=0,
    flip=0,
    low_resolution=0,
    occlusion=0,
    truncation=0,
    look=None,
)
"""For held-out crops: the crop that the annotation stage would cut."""


def truncated(
    image_rgb: Image,
    box_xyxy: NDArray[np.float32],
    config: CropAugmentConfig,
    rng: np.random.Generator,
) -> tuple[Image, NDArray[np.float32]]:
    """Cut off a side of the head, as the border of an image does.

    Args:
        image_rgb: (H, W, 3) uint8.
        box_xyxy: (4,) visible head, image px.
        config: strengths.
        rng: source of randomness.

    Returns:
        The image, black beyond the cut, and the box of the remaining part of the head.
    """
    if rng.random() >= config.truncation:
        return image_rgb, box_xyxy
    axis, far_side = int(rng.integers(2)), bool(rng.integers(2))
    near, far = float(box_xyxy[axis]), float(box_xyxy[axis + 2])
    fraction = rng.uniform(0.05, config.truncation_fraction)
    border = round(far - fraction * (far - near) if far_side else near + fraction * (far - near))
    image, box = image_rgb.copy(), box_xyxy.copy()
    beyond = slice(max(border, 0), None) if far_side else slice(0, max(border, 0))
    image[(slice(None), beyond) if axis == 0 else (beyond, slice(None))] = 0
    box[axis + 2 if far_side else axis] = border
    return image, box


def random_crop(
    frame: NDArray[np.floating],
    box_side: float,
    image_width: int,
    size: int,
    config: CropAugmentConfig,
    rng: np.random.Generator,
) -> Similarity:
    """Draw a change of frame around the square that the annotation stage would cut.

    Args:
        frame: (3,) left x, top y, side of that square, image px.
        box_side: longer side of the head's box, image px.
        image_width: px, for the mirror.
        size: side of the crop, px.
        config: strengths.
        rng: source of randomness; always draws equally often.

    Returns:
        The similarity from the image to the crop.
    """
    left, top, side = (float(value) for value in frame)
    shift_x, shift_y, log_zoom, turn = rng.uniform(-1, 1, 4)
    mirror_width = float(image_width) if rng.random() < config.flip else None
    jitter = config.shift * box_side * np.array([shift_x, shift_y])
    centre = np.array([left, top]) + side / 2 + jitter
    if mirror_width is not None:
        centre[0] = mirror_width - centre[0]
    zoom = size / side * float(np.exp(config.zoom * log_zoom))
    angle_rad = float(np.deg2rad(config.rotation_deg) * turn)
    shift = size / 2 - Similarity(zoom, angle_rad).points(centre).astype(np.float64)
    return Similarity(zoom, angle_rad, (float(shift[0]), float(shift[1])), mirror_width)


def cut_crop(image_rgb: Image, similarity: Similarity, size: int) -> Image:
    """Resample an image into the crop's frame; outside is black, as in the annotation stage.

    Args:
        image_rgb: (H, W, 3) uint8.
        similarity: from the image to the crop.
        size: side of the crop, px.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    matrix = similarity.matrix()
    # Pixel centres lie at halves in our frames and at integers in OpenCV's.
    matrix[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5
    crop = cv2.warpAffine(image_rgb, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)


def degraded(crop_rgb: Image, config: CropAugmentConfig, rng: np.random.Generator) -> Image:
    """Cover, coarsen and recolour a crop; geometry stays.

    Args:
        crop_rgb: (S, S, 3) uint8.
        config: strengths.
        rng: source of randomness.

    Returns:
        (S, S, 3) uint8 RGB.
    """
    crop = crop_rgb
    if rng.random() < config.occlusion:
        crop = _occluded(crop, config.occlusion_side, rng)
    if rng.random() < config.low_resolution:
        crop = _low_resolution(crop, config.smallest_side_px, rng)
    return crop if config.look is None else change_look(crop, config.look, rng)


def _occluded(crop: Image, largest_side: float, rng: np.random.Generator) -> Image:
    size = crop.shape[0]
    width, height = (rng.uniform(0.1, largest_side, 2) * size).astype(int)
    left, top = rng.integers(0, size - width + 1), rng.integers(0, size - height + 1)
    covered = crop.copy()
    covered[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return covered


def _low_resolution(crop: Image, smallest_side: int, rng: np.random.Generator) -> Image:
    size = crop.shape[0]
    # Uniform in the logarithm: halving twice is as likely at any size.
    side = round(float(np.exp(rng.uniform(np.log(min(smallest_side, size)), np.log(size)))))
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
