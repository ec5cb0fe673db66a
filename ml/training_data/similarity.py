"""Changes of the image frame that move image, boxes and FLAME parameters alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.flame.params import ROTATION, SCALE, SHIFT_XY, SHIFT_Z
from ml.imaging.letterbox import PADDING_VALUE

Image = NDArray[np.uint8]
Array = NDArray[np.floating]

Mirror = Callable[[Array], Array]
"""(N, 413) parameters -> the mirrored head's, about x = 0 of the image frame."""


@dataclass(frozen=True)
class Similarity:
    """A change of image frame: optional mirror, then p -> zoom * R(angle) p + shift.

    Attributes:
        zoom: new px per old px, > 0.
        angle_rad: from x (right) towards y (down), so clockwise on the screen.
        shift: (x, y), new px.
        mirror_width: width of the old image if x becomes width - x first, else None.
    """

    zoom: float = 1.0
    angle_rad: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    mirror_width: float | None = None

    def rotation(self) -> NDArray[np.float64]:
        """Return the rotation without zoom.

        Returns:
            (2, 2).
        """
        cosine, sine = np.cos(self.angle_rad), np.sin(self.angle_rad)
        return np.array([[cosine, -sine], [sine, cosine]])  # y points down: clockwise on the screen

    def matrix(self) -> NDArray[np.float64]:
        """Return the whole change as an affine matrix of continuous pixel coordinates.

        Returns:
            (2, 3).
        """
        matrix = np.column_stack([self.zoom * self.rotation(), np.asarray(self.shift)])
        if self.mirror_width is not None:
            # zoom R (w - x, y) + shift: the mirror's w moves into the shift, its sign into the x
            # column.
            matrix[:, 2] += matrix[:, 0] * self.mirror_width
            matrix[:, 0] *= -1
        return matrix

    def points(self, points_px: Array) -> NDArray[np.float32]:
        """Move image points.

        Args:
            points_px: (..., 2) old frame, px.

        Returns:
            (..., 2) float32 new frame, px.
        """
        matrix = self.matrix()
        return (points_px @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)

    def then(self, x: float, y: float) -> Similarity:
        """Return the same change, and then a shift.

        Args:
            x: to the right, new px.
            y: downwards, new px.

        Returns:
            Both as one.
        """
        return replace(self, shift=(self.shift[0] + x, self.shift[1] + y))

    def flame(self, flame: Array, mirror: Mirror | None = None) -> NDArray[np.float32]:
        """Move heads: their projected vertices move exactly as `points` would move them.

        A rotation of the image multiplies the head's rotation from the left, R <- Rz R. (The
        official code multiplies from the right, which agrees for frontal heads only.)

        Args:
            flame: (N, 413) image frame, px.
            mirror: the head model's mirror; needed when this similarity mirrors.

        Returns:
            (N, 413) float32, new frame.

        Raises:
            ValueError: it mirrors and no mirror was given.
        """
        moved = np.array(flame, np.float64)
        if self.mirror_width is not None:
            if mirror is None:
                raise ValueError(
                    "Similarity.flame: this similarity mirrors, so the head model's mirror is "
                    "needed; pass `mirror`, or set the flip probability to 0"
                )
            moved = np.array(mirror(flame), np.float64)
            # `mirror` mirrors about x = 0; the image is mirrored about its middle.
            moved[:, SHIFT_XY.start] += self.mirror_width
        transposed = self.rotation().T  # of row vectors
        # Rz acts on x and y of both columns of the 6D rotation; z is the axis it turns about.
        for first in (ROTATION.start, ROTATION.start + 3):
            moved[:, first : first + 2] = moved[:, first : first + 2] @ transposed
        moved[:, SHIFT_XY] = self.zoom * moved[:, SHIFT_XY] @ transposed + np.asarray(self.shift)
        # Weak perspective: depth is in pixels, too.
        moved[:, SHIFT_Z] *= self.zoom
        moved[:, SCALE] *= self.zoom
        return moved.astype(np.float32)

    def boxes(self, boxes_xyxy: Array, outlines: Array) -> NDArray[np.float32]:
        """Move boxes; a rotated head gets the bounds of its rotated outline.

        Args:
            boxes_xyxy: (N, 4) old frame, px.
            outlines: (N, K, 2) outlines whose bounds are the boxes, see `head_outlines`.

        Returns:
            (N, 4) float32 new frame, px; not clipped.
        """
        source = outlines if self.angle_rad else boxes_xyxy.reshape(-1, 2, 2)
        points = self.points(source)  # (N, K or 2, 2)
        return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)

    def warp(self, image_rgb: Image, size: int) -> Image:
        """Resample an image into the new frame.

        Args:
            image_rgb: (H, W, 3) uint8.
            size: side of the new, square image, px.

        Returns:
            (size, size, 3) uint8 RGB; grey where the old image does not reach.
        """
        matrix = self.matrix()
        if self.zoom < 1:
            # Averages areas first, as the letterbox does: bilinear sampling alone would alias.
            rows, columns = self._source(size, *image_rgb.shape[:2])
            # Only what the window shows is reduced: a crop of a large image costs what the crop
            # costs.
            image_rgb = image_rgb[rows, columns]
            height, width = image_rgb.shape[:2]
            matrix[:, 2] += matrix[:, :2] @ (columns.start, rows.start)
            small = (max(round(width * self.zoom), 1), max(round(height * self.zoom), 1))
            image_rgb = np.asarray(
                cv2.resize(image_rgb, small, interpolation=cv2.INTER_AREA), np.uint8
            )
            # The reduced size is rounded, so that its factor differs a little between the axes.
            matrix[:, :2] *= np.array([width, height]) / small
        # Pixel centres lie at halves in our frames and at integers in OpenCV's.
        matrix[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5
        warped = cv2.warpAffine(
            image_rgb,
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(PADDING_VALUE,) * 3,
        )
        return np.asarray(warped, np.uint8)

    def _source(self, size: int, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns of the old image that the new one shows, with some to spare."""
        cosine, sine = math.cos(self.angle_rad), math.sin(self.angle_rad)
        # The window's centre in the old image: shift, zoom, rotation and mirror undone in turn.
        x, y = ((size / 2 - shift) / self.zoom for shift in self.shift)
        x, y = cosine * x + sine * y, cosine * y - sine * x
        if self.mirror_width is not None:
            x = self.mirror_width - x
        # Two new pixels more: what bilinear sampling reaches, and the rounding of the scaled size.
        half = (size / 2 * (abs(cosine) + abs(sine)) + 2) / self.zoom + 1
        return _span(y - half, y + half, height), _span(x - half, x + half, width)


def _span(low: float, high: float, length: int) -> slice:
    """Return the indices of a length between two coordinates.

    The nearest index where there is none.
    """
    first = min(max(math.floor(low), 0), length - 1)
    return slice(first, min(max(math.ceil(high), first + 1), length))
