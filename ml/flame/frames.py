"""Image frames (network square, crop of a head) and FLAME parameters converted between them.

The crop frame is in crop pixels: x right, y down, the crop covers (0, 0, size, size).
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ml.flame.params import SCALE, SHIFT_XY, SHIFT_Z, TRANSLATION, check_flame
from ml.flame.projection import transform_flame
from ml.imaging.boxes import expand_boxes
from ml.imaging.letterbox import Letterbox

Array = NDArray[np.floating]
ArrayT = TypeVar("ArrayT", np.ndarray, torch.Tensor)

BOX_MARGIN = 0.25
"""Fraction of a box's width and height added on each of its sides (paper 3.2)."""

DAD_CROP_SIZE = 256
"""Side of the frame in which DAD-3DNet states scale and translation, whatever the crop's size."""

_PADDING_RGB = (0, 0, 0)


def image_to_network(flame: ArrayT, letterbox: Letterbox) -> ArrayT:
    """Move FLAME parameters from the image frame to the network's: translation and scale change.

    Args:
        flame: (..., 413) image pixels.
        letterbox: the similarity from image to network pixels.

    Returns:
        (..., 413) network pixels.
    """
    if isinstance(flame, torch.Tensor):
        pad = flame.new_tensor([letterbox.pad_x, letterbox.pad_y])
        return transform_flame(flame, letterbox.scale, pad)
    return image_to_network(torch.from_numpy(flame), letterbox).numpy()


def network_to_image(flame: ArrayT, letterbox: Letterbox) -> ArrayT:
    """Move FLAME parameters from the network's frame to the image frame.

    Args:
        flame: (..., 413) network pixels.
        letterbox: the similarity from image to network pixels.

    Returns:
        (..., 413) image pixels.
    """
    return image_to_network(flame, letterbox.inverse())


def square_frames(boxes_xyxy: Array, margin: float = BOX_MARGIN) -> Array:
    """Return squares that hold the extended boxes, with the same centre.

    Args:
        boxes_xyxy: (N, 4) head boxes, image frame, px.
        margin: see `extended_boxes`.

    Returns:
        (N, 3) float32: left x, top y and side of each square, image frame, px.

    Raises:
        ValueError: the boxes are not (N, 4).
    """
    extended = expand_boxes(_checked_boxes(boxes_xyxy), margin)
    side = (extended[:, 2:] - extended[:, :2]).max(axis=1, keepdims=True)
    origin = (extended[:, :2] + extended[:, 2:]) / 2 - side / 2
    return np.concatenate([origin, side], axis=1).astype(np.float32)


def extract_crops(image_rgb: NDArray[np.uint8], frames: Array, size: int) -> NDArray[np.uint8]:
    """Cut squares out of an image and resize them; outside of the image is black.

    Enlarging is bilinear. A reduction first samples a whole multiple of `size` and then averages
    its cells, so that no detail aliases.

    Args:
        image_rgb: (H, W, 3) uint8.
        frames: (N, 3) left x, top y, side; image frame, px.
        size: side of the crops, px.

    Returns:
        (N, size, size, 3) uint8 RGB.

    Raises:
        ValueError: the image is not (H, W, 3), or a side is not positive and finite.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3:
        raise ValueError(f"image_rgb: expected (H, W, 3), got {image_rgb.shape}")
    frames = _checked_frames(frames)
    crops = np.empty((len(frames), size, size, 3), np.uint8)
    for crop, (left, top, side) in zip(crops, frames, strict=True):
        multiple = max(1, int(np.ceil(side / size - 1e-6)))
        step = side / (size * multiple)
        # Pixel centres lie at halves in our frames and at integers in OpenCV's.
        sampling = np.array([[step, 0, left + step / 2 - 0.5], [0, step, top + step / 2 - 0.5]])
        warped = cv2.warpAffine(
            image_rgb,
            sampling,
            (size * multiple, size * multiple),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=_PADDING_RGB,
        )
        crop[:] = cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
    return crops


def crop_to_image(flame: Array, frames: Array, size: int) -> Array:
    """Move FLAME parameters from the crop frame to the image frame.

    Args:
        flame: (N, 413) crop frame: translation px, scale px per metre.
        frames: (N, 3) left x, top y, side; image frame, px.
        size: side of the crops, px.

    Returns:
        (N, 413) float32, image frame.

    Raises:
        ValueError: a shape does not fit.
    """
    frames = _checked_frames(frames, len(flame))
    return _transformed(flame, frames[:, 2] / size, frames[:, :2])


def dad_crop_to_image(flame: Array, extended_boxes_xyxy: Array) -> Array:
    """Move DAD-3DNet's parameters of a crop of the extended box to the image frame.

    DAD-3DNet projects with ((S + 1) R v + t + 1) / 2 * 256, where S and t are already re-expressed
    so that the result is in pixels of the crop, whatever its size. Hence s = 128 (S + 1) px/m and
    t = 128 (t + 1) + origin of the extended box. The other parameters do not change.

    Args:
        flame: (N, 413) DAD-3DNet's convention.
        extended_boxes_xyxy: (N, 4) image frame, px; only the origin counts.

    Returns:
        (N, 413) float32, image frame; the translation's z, which has no meaning, is 0.

    Raises:
        ValueError: a shape does not fit.

    Source: DAD-3DHeads, predictor and head mesh.
    """
    flame = _checked_flame(flame)
    boxes = _checked_boxes(extended_boxes_xyxy, len(flame))
    image = flame.copy()
    half = DAD_CROP_SIZE / 2
    image[:, TRANSLATION] = half * (flame[:, TRANSLATION] + 1)
    image[:, SHIFT_XY] += boxes[:, :2]
    image[:, SHIFT_Z] = 0
    image[:, SCALE] = half * (flame[:, SCALE] + 1)
    return image.astype(np.float32)


def image_to_dad_crop(flame: Array, extended_boxes_xyxy: Array) -> Array:
    """Express image frame parameters in DAD-3DNet's convention, the inverse of `dad_crop_to_image`.

    Args:
        flame: (N, 413) image frame: translation px, scale px per metre.
        extended_boxes_xyxy: (N, 4) image frame, px; only the origin counts.

    Returns:
        (N, 413) float32, as the official annotation files hold them; the translation's z is 0.

    Raises:
        ValueError: a shape does not fit.
    """
    flame = _checked_flame(flame)
    boxes = _checked_boxes(extended_boxes_xyxy, len(flame))
    dad = flame.copy()
    half = DAD_CROP_SIZE / 2
    dad[:, SHIFT_XY] = (flame[:, SHIFT_XY] - boxes[:, :2]) / half - 1
    dad[:, SHIFT_Z] = 0
    dad[:, SCALE] = flame[:, SCALE] / half - 1
    return dad.astype(np.float32)


def _transformed(flame: Array, zoom: Array, shift_px: Array) -> Array:
    # In float64: there and back is then exact to float32's last digit.
    moved = transform_flame(
        torch.from_numpy(_checked_flame(flame)), torch.from_numpy(zoom), torch.from_numpy(shift_px)
    )
    return np.asarray(moved.numpy(), np.float32)


def _checked_flame(flame: Array) -> Array:
    flame = np.array(flame, np.float64)
    check_flame(flame)
    if flame.ndim != 2:
        raise ValueError(f"flame: expected (N, 413), got {flame.shape}")
    return flame


def _checked_boxes(boxes: Array, num_heads: int | None = None) -> Array:
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or num_heads not in (None, len(boxes)):
        expected = f"({'N' if num_heads is None else num_heads}, 4)"
        raise ValueError(f"boxes: expected {expected} x0 y0 x1 y1 px, got {boxes.shape}")
    return boxes


def _checked_frames(frames: Array, num_heads: int | None = None) -> Array:
    frames = np.asarray(frames, np.float64)
    if frames.ndim != 2 or frames.shape[1] != 3 or num_heads not in (None, len(frames)):
        expected = f"({'N' if num_heads is None else num_heads}, 3)"
        raise ValueError(f"frames: expected {expected} left, top, side, got {frames.shape}")
    good = np.isfinite(frames).all(axis=1) & (frames[:, 2] > 0)
    if not good.all():
        bad = int(np.argmin(good))
        raise ValueError(f"frames[{bad}]: expected numbers and a side > 0, got {frames[bad]}")
    return frames
