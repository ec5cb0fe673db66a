"""Boxes drawn on images: labels, predictions, and detections of a filter."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

TRUTH_RGB = (60, 220, 90)
PREDICTION_RGB = (255, 120, 40)
IGNORED_RGB = (150, 150, 150)


def draw_boxes(
    image: Image,
    boxes_xyxy: np.ndarray,
    colour_rgb: tuple[int, int, int],
    scores: np.ndarray | None = None,
    zoom: int = 1,
) -> Image:
    """Draw boxes on a copy of an image.

    Args:
        image: (H, W, 3) uint8 RGB, already enlarged by `zoom`.
        boxes_xyxy: (N, 4) px before enlarging.
        colour_rgb: of the lines.
        scores: (N,) written above the boxes; None writes nothing.
        zoom: scale from the boxes' frame to the image.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas = image.copy()
    for index, box in enumerate(boxes_xyxy * zoom):
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour_rgb, 1 if zoom == 1 else 2)
        if scores is not None:
            where = (x0, max(y0 - 3, 9))
            text = f"{scores[index]:.2f}"
            cv2.putText(
                canvas, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour_rgb, 1, cv2.LINE_AA
            )
    return canvas


def enlarge(image: Image, zoom: int) -> Image:
    """Enlarge an image by a whole factor.

    Args:
        image: (H, W, 3) uint8 RGB.
        zoom: factor, at least 1.

    Returns:
        (zoom H, zoom W, 3) uint8 RGB.
    """
    if zoom == 1:
        return image
    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
