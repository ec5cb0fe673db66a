"""Protocol of head box detectors, and the selection of heads from their raw boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ml.imaging.boxes import clip_boxes, nms

Boxes: TypeAlias = NDArray[np.float32]
"""(N, 4) left, top, right, bottom; px of the image they belong to."""
Scores: TypeAlias = NDArray[np.float32]
"""(N,) confidences in [0, 1]."""
Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) RGB."""


@runtime_checkable
class HeadBoxDetector(Protocol):
    """Finds heads in images; one call is one batched pass."""

    name: str
    """Short name, recorded with every head."""
    sha256: str
    """Hash of the weights, recorded with every head."""

    def detect(self, images: Sequence[Image]) -> list[tuple[Boxes, Scores]]:
        """Find heads.

        Args:
            images: (H, W, 3) uint8 RGB each, sizes may differ.

        Returns:
            For every image its boxes in its own pixels and their scores, best first. Weak boxes
            are included: the caller chooses the threshold.
        """
        ...


def select_detections(
    boxes_xyxy: Boxes,
    scores: Scores,
    image_size: tuple[int, int],
    threshold: float,
    nms_iou: float,
    max_heads: int,
) -> tuple[Boxes, Scores]:
    """Threshold, clip to the image, suppress duplicates, order by score.

    Args:
        boxes_xyxy: (N, 4) image px.
        scores: (N,).
        image_size: height, width; px.
        threshold: lowest score of a head.
        nms_iou: of two boxes that overlap more than this, the weaker goes.
        max_heads: most heads of an image.

    Returns:
        (M, 4) boxes inside the image and (M,) scores, best first; boxes thinner than a pixel are
        dropped.
    """
    height, width = image_size
    boxes = clip_boxes(boxes_xyxy.astype(np.float32), width, height)
    thinnest = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
    kept = (scores >= threshold) & (thinnest >= 1)
    boxes, scores = boxes[kept], scores[kept].astype(np.float32)
    order = nms(boxes, scores, nms_iou, max_heads)
    return boxes[order], scores[order]
