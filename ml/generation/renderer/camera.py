"""Camera model: exposure, white balance, lens, sensor."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ml.imaging.rasterizer import Float32Array


@dataclass(frozen=True)
class Camera:
    """One camera setting.

    Attributes:
        exposure: gain of the linear image.
        balance: (3,) gains of red, green and blue.
        vignette: darkening of the corners, 0 none.
        softness: blur of the lens, fraction of the longer side.
        motion: length of a motion blur in pixels of a 256 px image, 0 none.
        motion_angle: its direction, radians.
        noise: standard deviation of the sensor noise at middle grey, 0 to 1.
        saturation: 1 neutral.
        contrast: 1 neutral.
        monochrome: whether the image is black and white.
    """

    exposure: float
    balance: np.ndarray
    vignette: float
    softness: float
    motion: float
    motion_angle: float
    noise: float
    saturation: float
    contrast: float
    monochrome: bool


def sample_camera(light: str, rng: np.random.Generator) -> Camera:
    """Draw a camera for a light: more noise at night, warmer or cooler by chance.

    Args:
        light: word of the vocabulary.
        rng: source of chance.

    Returns:
        The camera.
    """
    dim = light in ("night light", "warm lamp light")
    warmth = rng.normal(0.0, 0.045)
    return Camera(
        exposure=float(2.0 ** rng.normal(0.05, 0.22)),
        balance=np.array([1.0 + warmth, 1.0 + rng.normal(0.0, 0.012), 1.0 - warmth]),
        vignette=float(rng.uniform(0.0, 0.32)),
        softness=float(rng.choice([0.0006, 0.0016, 0.0040], p=[0.62, 0.28, 0.10])),
        motion=float(rng.uniform(1.5, 4.0)) if rng.random() < 0.06 else 0.0,
        motion_angle=float(rng.uniform(0.0, np.pi)),
        noise=float(rng.gamma(2.0, 0.0065 if dim else 0.0035)),
        saturation=float(np.clip(rng.normal(1.0, 0.10), 0.7, 1.25)),
        contrast=float(np.clip(rng.normal(1.03, 0.06), 0.88, 1.2)),
        monochrome=bool(rng.random() < 0.03),
    )


def develop(linear: Float32Array, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Turn a display-linear image into 8-bit sRGB.

    Args:
        linear: (H, W, 3) float32 RGB.
        camera: the setting.
        rng: draws the noise.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = linear.shape[:2]
    side = max(height, width)
    image = linear * (camera.exposure * camera.balance).astype(np.float32)
    if camera.vignette > 0.0:
        y = (np.arange(height, dtype=np.float32) + 0.5 - 0.5 * height) / (0.5 * side)
        x = (np.arange(width, dtype=np.float32) + 0.5 - 0.5 * width) / (0.5 * side)
        distance = y[:, None] ** 2 + x[None] ** 2
        image *= (1.0 / (1.0 + camera.vignette * distance) ** 1.5)[..., None]
    if camera.motion > 0.0:
        kernel = _motion_kernel(camera.motion * side / 256.0, camera.motion_angle)
        image = np.asarray(cv2.filter2D(image, -1, kernel), np.float32)
    sigma = camera.softness * side
    if sigma > 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    # A soft shoulder, so that bright skies and skin keep their colour.
    image = np.maximum(image, 0.0)
    over = np.maximum(image - 0.8, 0.0)
    image = np.minimum(image, 0.8) + 0.2 * (1.0 - np.exp(-over / 0.2))
    display = _CURVE[np.clip(image * 4096.0, 0, 4096).astype(np.int32)]
    grey = display @ np.array([0.299, 0.587, 0.114], np.float32)
    if camera.monochrome:
        display = np.repeat(grey[..., None], 3, axis=2)
    else:
        display = grey[..., None] + camera.saturation * (display - grey[..., None])
    display = 0.45 + camera.contrast * (display - 0.45)
    if camera.noise > 0.0:
        grain = rng.standard_normal((height, width, 3), dtype=np.float32)
        common = grain.mean(axis=2, keepdims=True)
        display += camera.noise * (0.5 * grain + 0.9 * common) * (1.15 - 0.5 * grey[..., None])
    return np.clip(display * 255.0 + 0.5, 0, 255).astype(np.uint8)


_CURVE = (np.linspace(0.0, 1.0, 4097) ** (1.0 / 2.2)).astype(np.float32)


def _motion_kernel(length: float, angle: float) -> np.ndarray:
    size = int(np.ceil(length)) | 1
    size = max(size, 3)
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    for t in np.linspace(-0.5, 0.5, 4 * size):
        column = round(middle + t * (length - 1) * np.cos(angle))
        row = round(middle + t * (length - 1) * np.sin(angle))
        kernel[row, column] += 1.0
    return kernel / kernel.sum()
