"""A drawing surface with a camera: quads, boxes and blobs given in metres, seen in perspective."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ml.generation.renderer.noise import fractal_image
from ml.imaging.rasterizer import Float32Array

Colour = Sequence[float] | np.ndarray

EYE_HEIGHT_M = 1.6
NEAR_M = 0.6
FOCAL_PER_WIDTH = 1.15
"""Focal length, in widths of the image."""


class Canvas:
    """A display-referred RGB image, drawn back to front.

    World frame of the drawing: x right, y up from the ground, z into the image, metres; the
    camera is at (0, 1.6, 0).
    """

    def __init__(self, height: int, width: int, horizon: float, rng: np.random.Generator) -> None:
        """Start black.

        Args:
            height: pixels.
            width: pixels.
            horizon: row of the horizon, pixels.
            rng: draws everything that is not given explicitly.
        """
        self.pixels: np.ndarray = np.zeros((height, width, 3), np.uint8)
        self.height = height
        self.width = width
        self.horizon = horizon
        self.focal = FOCAL_PER_WIDTH * width
        self.rng = rng
        self.haze: np.ndarray = np.array([190.0, 200.0, 210.0])
        self.haze_per_m = 0.0

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return pixels (N, 2) of world points (N, 3).

        A point behind the camera is drawn at 0.6 m.
        """
        depth = np.maximum(points[:, 2], NEAR_M)
        return np.stack(
            [
                0.5 * self.width + self.focal * points[:, 0] / depth,
                self.horizon + self.focal * (EYE_HEIGHT_M - points[:, 1]) / depth,
            ],
            -1,
        )

    def gradient(self, top: float, bottom: float, first: Colour, last: Colour) -> None:
        """Fill rows `top` to `bottom` (pixels) with a vertical gradient."""
        low, high = int(np.clip(top, 0, self.height)), int(np.clip(bottom, 0, self.height))
        if high <= low:
            return
        fraction = ((np.arange(low, high) + 0.5 - top) / max(bottom - top, 1.0))[:, None, None]
        colours = np.asarray(first) * (1 - fraction) + np.asarray(last) * fraction
        self.pixels[low:high] = np.clip(colours, 0, 255).astype(np.uint8)

    def texture(
        self, top: float, bottom: float, cell: float, amount: float, stretch: float = 1.0
    ) -> None:
        """Vary the brightness of rows `top` to `bottom` by fractal noise."""
        low, high = int(np.clip(top, 0, self.height)), int(np.clip(bottom, 0, self.height))
        if high <= low:
            return
        noise = fractal_image(
            high - low, self.width, cell, 3, float(self.rng.integers(9999)), stretch
        )
        gain = 1.0 + amount * (noise - 0.5)[..., None]
        band = self.pixels[low:high] * gain
        self.pixels[low:high] = np.clip(band, 0, 255).astype(np.uint8)

    def ground_texture(self, cell_m: float, amount: float) -> None:
        """Draw noise on the ground plane below the horizon, in perspective."""
        low = int(np.clip(self.horizon + 1, 0, self.height))
        if low >= self.height:
            return
        rows = np.arange(low, self.height) + 0.5
        depth = self.focal * EYE_HEIGHT_M / np.maximum(rows - self.horizon, 0.5)
        columns = (np.arange(self.width) + 0.5 - 0.5 * self.width) / self.focal
        noise = fractal_image(256, 256, 16.0, 3, float(self.rng.integers(9999)))
        u = _mirrored(columns[None] * depth[:, None] / cell_m * 16.0 + 77.0)
        v = np.broadcast_to(_mirrored(depth[:, None] / cell_m * 16.0), u.shape)
        fade = np.clip(6.0 / depth, 0.1, 1.0)[:, None, None]
        band = self.pixels[low:] * (1.0 + amount * fade * (noise[v, u] - 0.5)[..., None])
        self.pixels[low:] = np.clip(band, 0, 255).astype(np.uint8)

    def polygon(self, points_px: np.ndarray, colour: Colour) -> None:
        """Fill a polygon given in pixels."""
        if not np.isfinite(points_px).all():
            return
        clipped = np.clip(points_px, -8 * self.width, 8 * self.width)
        fixed = np.round(clipped * 16).astype(np.int32)
        cv2.fillPoly(self.pixels, [fixed], _rgb(colour), cv2.LINE_AA, 4)

    def quad(self, points: np.ndarray, colour: Colour) -> None:
        """Fill a world polygon (N, 3), dimmed by haze with distance."""
        self.polygon(self.project(points), self.hazed(colour, float(points[:, 2].mean())))

    def wall(
        self,
        left: Sequence[float],
        right: Sequence[float],
        bottom: float,
        top: float,
        colour: Colour,
    ) -> None:
        """Draw a vertical rectangle between ground points (x, z) `left` and `right`."""
        points = np.array(
            [
                (left[0], bottom, left[1]),
                (right[0], bottom, right[1]),
                (right[0], top, right[1]),
                (left[0], top, left[1]),
            ]
        )
        self.quad(points, colour)

    def box(
        self,
        centre: Sequence[float],
        size: Sequence[float],
        colour: Colour,
        shades: Sequence[float] = (1.0, 0.78, 1.12),
    ) -> None:
        """Draw a box standing at ground point (x, y, z): front, nearer side and top face.

        Args:
            centre: x, height of the underside, z of the middle.
            size: width, height, depth.
            colour: of the front.
            shades: brightness of front, side and top.
        """
        x, y, z = centre
        w, h, d = size
        base = np.asarray(colour, np.float64)
        near, far = max(z - d / 2, NEAR_M), max(z + d / 2, NEAR_M + 0.01)
        if x - w / 2 > 0:
            self.wall((x - w / 2, near), (x - w / 2, far), y, y + h, base * shades[1])
        elif x + w / 2 < 0:
            self.wall((x + w / 2, near), (x + w / 2, far), y, y + h, base * shades[1])
        if y + h < EYE_HEIGHT_M:
            corners = [(x - w / 2, near), (x + w / 2, near), (x + w / 2, far), (x - w / 2, far)]
            self.quad(np.array([(cx, y + h, cz) for cx, cz in corners]), base * shades[2])
        self.wall((x - w / 2, near), (x + w / 2, near), y, y + h, base)

    def blob(
        self, point: Sequence[float], radius_m: float, colour: Colour, flat: float = 1.0
    ) -> None:
        """Draw a filled ellipse around a world point."""
        centre = self.project(np.array([point], np.float64))[0]
        radius = self.focal * radius_m / max(point[2], NEAR_M)
        self.disc(centre, radius, self.hazed(colour, point[2]), flat)

    def disc(
        self, centre_px: np.ndarray, radius_px: float, colour: Colour, flat: float = 1.0
    ) -> None:
        """Draw a filled ellipse in pixels, `flat` times as high as wide."""
        column, row = float(centre_px[0]), float(centre_px[1])
        far = 8.0 * self.width
        if not (0.3 <= radius_px <= 0.5 * far and abs(column) < far and abs(row) < far):
            return
        x, y = round(column * 16), round(row * 16)
        axes = (max(int(radius_px * 16), 1), max(int(radius_px * flat * 16), 1))
        cv2.ellipse(self.pixels, (x, y), axes, 0.0, 0.0, 360.0, _rgb(colour), -1, cv2.LINE_AA, 4)

    def line(
        self, start: Sequence[float], end: Sequence[float], width_m: float, colour: Colour
    ) -> None:
        """Draw a world segment as a band of constant world width."""
        points = np.array([start, end], np.float64)
        a, b = self.project(points)
        across = np.array([a[1] - b[1], b[0] - a[0]])
        across = across / (np.linalg.norm(across) + 1e-6)
        half_a = max(0.5 * self.focal * width_m / max(points[0, 2], NEAR_M), 0.35)
        half_b = max(0.5 * self.focal * width_m / max(points[1, 2], NEAR_M), 0.35)
        corners = np.stack(
            [a + across * half_a, b + across * half_b, b - across * half_b, a - across * half_a]
        )
        self.polygon(corners, self.hazed(colour, float(points[:, 2].mean())))

    def hazed(self, colour: Colour, distance: float) -> np.ndarray:
        """Return the colour of a thing `distance` metres away."""
        fraction = 1.0 - np.exp(-self.haze_per_m * max(distance, 0.0))
        return np.asarray(colour, np.float64) * (1.0 - fraction) + self.haze * fraction

    def blur(self, sigma_px: float) -> None:
        """Blur what has been drawn so far."""
        if sigma_px > 0.25:
            self.pixels = np.asarray(
                cv2.GaussianBlur(self.pixels, (0, 0), float(sigma_px)), np.uint8
            )

    def linear(self) -> Float32Array:
        """Return the image as display-linear RGB, (H, W, 3) float32 in [0, 1]."""
        return _LINEAR[self.pixels]


_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)


def _mirrored(position: np.ndarray) -> np.ndarray:
    """Return the index into 256 cells that runs to and fro: a texture repeats without a seam."""
    cell = np.floor(position).astype(np.int64) % 512
    return np.minimum(cell, 511 - cell)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (min(max(int(value), 0), 255) for value in colour)
    return red, green, blue
