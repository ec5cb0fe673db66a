"""The letterbox: an image fitted into the network's square, and coordinates moved to and fro."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

PADDING_VALUE = 127
"""Grey of the padding, all channels, as in the published training."""

ArrayT = TypeVar("ArrayT", np.ndarray, Tensor)


@dataclass(frozen=True)
class Letterbox:
    """The similarity from image pixels to network pixels: p_network = scale p_image + pad.

    Attributes:
        scale: network pixels per image pixel, > 0.
        pad_x: network pixels left of the image.
        pad_y: network pixels above the image.
    """

    scale: float = 1.0
    pad_x: float = 0.0
    pad_y: float = 0.0

    def __post_init__(self) -> None:
        """Check that the scale has an inverse."""
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"Letterbox.scale: expected a finite number > 0, got {self.scale}")

    @staticmethod
    def fit(width: int, height: int, size: int) -> Letterbox:
        """Return the similarity that centres an image in a square.

        The image is resized to whole pixels, so for one of its sides the true zoom differs from
        `scale` by less than half a pixel over that whole side.

        Args:
            width: image width, pixels.
            height: image height, pixels.
            size: side of the square, pixels.

        Returns:
            The similarity; the longest side fills the square.

        Raises:
            ValueError: the image is empty.
        """
        if width < 1 or height < 1:
            raise ValueError(f"letterbox: expected an image with pixels, got {width} x {height}")
        scale = size / max(width, height)
        new_width, new_height = _resized(width, height, scale)
        return Letterbox(scale, (size - new_width) // 2, (size - new_height) // 2)

    def boxes_to_network(self, boxes_xyxy: ArrayT) -> ArrayT:
        """Return boxes from image to network pixels.

        Args:
            boxes_xyxy: (..., 4) image pixels, xyxy.

        Returns:
            (..., 4) network pixels.
        """
        pad = (self.pad_x, self.pad_y, self.pad_x, self.pad_y)
        if isinstance(boxes_xyxy, Tensor):
            return boxes_xyxy * self.scale + boxes_xyxy.new_tensor(pad)
        return boxes_xyxy * self.scale + np.asarray(pad, dtype=boxes_xyxy.dtype)

    def boxes_to_image(self, boxes_xyxy: ArrayT) -> ArrayT:
        """Return boxes from network to image pixels.

        Args:
            boxes_xyxy: (..., 4) network pixels, xyxy.

        Returns:
            (..., 4) image pixels.
        """
        return self.inverse().boxes_to_network(boxes_xyxy)

    def inverse(self) -> Letterbox:
        """Return the similarity from network pixels to image pixels."""
        return Letterbox(1 / self.scale, -self.pad_x / self.scale, -self.pad_y / self.scale)


def letterbox_image(image_rgb: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], Letterbox]:
    """Resize an image so that it fits into a square, centred, grey around it.

    The official training code centres, its validation and evaluation pad at the bottom right, and
    there the padding comes out blue instead of grey. Here it is always centred and grey.

    Args:
        image_rgb: (H, W, 3) uint8.
        size: side of the square, pixels.

    Returns:
        (size, size, 3) uint8 and the similarity from image to network pixels.

    Raises:
        ValueError: the image is empty or not (H, W, 3).
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3:
        raise ValueError(
            f"image_rgb: expected (H, W, 3), got {image_rgb.shape}; pass one RGB image"
        )
    height, width = image_rgb.shape[:2]
    letterbox = Letterbox.fit(width, height, size)
    new_width, new_height = _resized(width, height, letterbox.scale)
    if (new_width, new_height) != (width, height):
        # Averaging over areas when the image shrinks: bilinear sampling would alias.
        how = cv2.INTER_AREA if letterbox.scale < 1 else cv2.INTER_LINEAR
        image_rgb = np.asarray(
            cv2.resize(image_rgb, (new_width, new_height), interpolation=how), dtype=np.uint8
        )
    square = np.full((size, size, 3), PADDING_VALUE, dtype=np.uint8)
    top, left = int(letterbox.pad_y), int(letterbox.pad_x)
    square[top : top + new_height, left : left + new_width] = image_rgb
    return square, letterbox


def _resized(width: int, height: int, scale: float) -> tuple[int, int]:
    """Return whole-pixel size of the resized image, at least one pixel each way."""
    return max(1, round(width * scale)), max(1, round(height * scale))
