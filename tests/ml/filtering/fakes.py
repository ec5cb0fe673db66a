"""A detector whose heads are drawn: white squares of any size, and a log of what it was asked."""

from __future__ import annotations

import cv2
import numpy as np


class SquareDetector:
    """Finds white squares; a square that touches a border is not found."""

    name = "squares"
    sha256 = "5" * 64

    def __init__(self):
        self.calls = []

    def detect(self, images):
        self.calls.append([image.shape for image in images])
        return [self._find(image) for image in images]

    @staticmethod
    def _find(image):
        white = (image > 200).all(axis=2).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(white)
        found = [
            (x, y, x + w, y + h)
            for x, y, w, h, area in stats[1:]
            if area > 12 and x > 0 and x + w < image.shape[1]
        ]
        boxes = np.array(sorted(found), np.float32).reshape(-1, 4)
        return boxes, np.full(len(boxes), 0.9, np.float32)


class LopsidedDetector(SquareDetector):
    """Does not see what lies in the left quarter."""

    @staticmethod
    def _find(image):
        boxes, scores = SquareDetector._find(image)
        seen = boxes[:, 0] >= image.shape[1] / 4
        return boxes[seen], scores[seen]


def picture(*squares, width=120, height=80):
    """Grey with white squares (x, y, side)."""
    image = np.full((height, width, 3), 60, np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = 255
    return image
