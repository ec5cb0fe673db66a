"""The one image reader (it returns RGB) and the one JPEG writer."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

# A picture of more pixels than this is refused.
MAX_PIXELS = 100_000_000


class UnreadableImage(ValueError):
    """An image cannot be decoded; the message says why."""


def decode_image(data: bytes | Path) -> np.ndarray:
    """Decode an image to RGB, turned upright by its EXIF orientation; alpha is dropped.

    A JPEG whose data ends early is refused: decoders fill the rest with grey, silently.

    Args:
        data: encoded bytes, or the path of a file.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImage: empty, truncated, of no known format, or larger than `MAX_PIXELS`.
    """
    if isinstance(data, Path):
        try:
            data = data.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"image file cannot be read: {error}") from error
    if not data:
        raise UnreadableImage("image is empty: expected encoded bytes, got 0")
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-64:]:
        raise UnreadableImage(f"JPEG is truncated: no end marker in its {len(data)} bytes")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UnreadableImage(f"image cannot be decoded: {error.err}") from error
    if image is None:
        raise UnreadableImage(f"image cannot be decoded: {len(data)} bytes of no known format")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise UnreadableImage(f"image has {image.shape[:2]} pixels, more than {MAX_PIXELS}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def encode_jpeg(image_rgb: np.ndarray, quality: int = 92) -> bytes:
    """Encode (H, W, 3) uint8 RGB as JPEG; the same image gives the same bytes."""
    return _encode(image_rgb, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(image_rgb: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 RGB as PNG."""
    return _encode(image_rgb, ".png", [])


def _encode(image_rgb: np.ndarray, extension: str, options: list[int]) -> bytes:
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(
            f"image: expected (H, W, 3) uint8 RGB, got {image_rgb.shape} {image_rgb.dtype}"
        )
    done, data = cv2.imencode(extension, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"image of shape {image_rgb.shape} cannot be encoded as {extension}")
    return data.tobytes()
