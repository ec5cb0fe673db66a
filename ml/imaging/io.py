"""The one image reader (it returns RGB) and the one JPEG writer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# A picture of more pixels than this is refused.
MAX_PIXELS = 100_000_000
TRANSPARENT_GREY = 127
"""What shows through transparent pixels: the letterbox's grey, so that they look like padding."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"


class UnreadableImage(ValueError):
    """An image cannot be decoded; the message says why."""


def decode_image(data: bytes | Path) -> np.ndarray:
    """Decode an image to RGB, turned upright by its EXIF orientation.

    Grey becomes three equal channels, 16 bits become the upper 8, what is transparent becomes grey.
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
    if data[:2] == b"\xff\xd8" and not _jpeg_ends(data):
        raise UnreadableImage(f"JPEG is truncated: no end marker in its {len(data)} bytes")
    if _may_be_transparent(data):
        return _decode_transparent(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UnreadableImage(f"image cannot be decoded: {error.err}") from error
    if image is None:
        raise UnreadableImage(f"image cannot be decoded: {len(data)} bytes of no known format")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise UnreadableImage(f"image has {image.shape[:2]} pixels, more than {MAX_PIXELS}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def to_rgb(image: np.ndarray | Image.Image) -> np.ndarray:
    """An image that is in memory already, as the reader would return it.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA array of uint8, uint16, bool, or
            floating point in [0, 1]; or a PIL image of any mode, turned by its EXIF orientation.

    Returns:
        (H, W, 3) uint8, RGB; the input itself if it is that already.

    Raises:
        UnreadableImage: another shape or type, or floats that are not within [0, 1].
    """
    if not isinstance(image, np.ndarray):
        image = _pil_array(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise UnreadableImage(
            "image array: expected (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, "
            f"got {image.shape}"
        )
    image = _to_bytes(image)
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return _flatten(image) if image.shape[2] == 4 else image


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """Samples of any supported type as uint8."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * 255
    if image.dtype.kind != "f":
        raise UnreadableImage(
            f"image array: expected uint8, uint16, bool or floats in [0, 1], got {image.dtype}"
        )
    low, high = float(image.min()), float(image.max())
    # also true for NaN
    if not (low >= 0.0 and high <= 1.0):
        raise UnreadableImage(
            f"image array: floats must lie within [0, 1], got {low:.4g} to {high:.4g}; "
            "convert to uint8 if they are 0..255"
        )
    return np.round(image * 255.0).astype(np.uint8)


def _flatten(image_rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 over grey."""
    alpha = image_rgba[:, :, 3:].astype(np.uint32)
    mixed = image_rgba[:, :, :3] * alpha + TRANSPARENT_GREY * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _pil_array(image: Image.Image) -> np.ndarray:
    """A PIL image, upright, as an array that `to_rgb` understands."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise UnreadableImage(
            f"image: expected a numpy array or a PIL image, got {type(image).__name__}"
        )
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # PIL reads 16-bit grey as 32-bit integers in some formats
        return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _may_be_transparent(data: bytes) -> bool:
    """Whether the header of a PNG or WebP file speaks of transparency."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in data[:4096]
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        return bool(data[20] & 0x10) if len(data) > 20 else False
    return data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8L"


def _decode_transparent(data: bytes) -> np.ndarray:
    """Decode with PIL, which keeps alpha and orientation both; OpenCV gives only one of them."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage(
                    f"image has {(image.height, image.width)} pixels, more than {MAX_PIXELS}"
                )
            image.load()
            return to_rgb(image)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"image cannot be decoded: {error}") from error


def _jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG's picture is whole; phones append films and depth maps behind its end."""
    if _END_OF_IMAGE in data[-64:]:
        return True
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _START_OF_SCAN:
            # inside the scan every 0xff of the data is followed by a zero
            return data.find(_END_OF_IMAGE, position) >= 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


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
