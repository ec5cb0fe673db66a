"""Contact sheets: many small images on one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_BACKGROUND = 245
_INK = (40, 40, 40)


def contact_sheet(
    images_rgb: Sequence[np.ndarray],
    columns: int = 6,
    cell_px: int = 192,
    labels: Sequence[str] | None = None,
) -> np.ndarray:
    """Lay images out in rows, each fitted into a square cell.

    Args:
        images_rgb: (H, W, 3) uint8 RGB images of any sizes.
        columns: cells in a row.
        cell_px: side of a cell.
        labels: a short text under each image.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    band = 18 if labels else 0
    columns = max(1, min(columns, len(images_rgb)))
    rows = max(1, -(-len(images_rgb) // columns))
    pitch = cell_px + 4
    height = rows * (pitch + band) + 4
    sheet = np.full((height, columns * pitch + 4, 3), _BACKGROUND, np.uint8)
    for index, image in enumerate(images_rgb):
        top = 4 + (index // columns) * (pitch + band)
        left = 4 + (index % columns) * pitch
        fitted = _fit(image, cell_px)
        y = top + (cell_px - fitted.shape[0]) // 2
        x = left + (cell_px - fitted.shape[1]) // 2
        sheet[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
        if labels:
            where = (left + 2, top + cell_px + 13)
            cv2.putText(
                sheet, labels[index], where, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA
            )
    return sheet


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    ratio = side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC)
