"""The one image reader (it returns RGB) and the one JPEG writer."""

from __future__ import annotations

import io
import struct
import traceback
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from ml.records.files import UnreadableFile, is_environment, read_file
from ml.records.limits import MAX_IMAGE_FILE_BYTES, MAX_IMAGE_PIXELS
from ml.records.remote import AnyPath, RemotePath

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES: Final = frozenset(
    {
        ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
        ".avif", ".jp2", ".ppm", ".pgm", ".pbm",
    }
)  # fmt: skip
"""Endings of files that `decode_image` reads."""
_FORMATS: Final = (
    "JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM",
)  # fmt: skip
"""Pillow's names of the formats: no other decoder may read the bytes."""
_PILLOW_ONLY: Final = frozenset({"GIF", "AVIF"})
"""OpenCV leaves AVIF's rotation out, and a GIF's transparency."""
TRANSPARENT_GREY = 127
"""Colour behind transparent pixels: the letterbox's grey, so that they look like padding."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_ORIENTATION: Final = 0x0112
"""EXIF's number of the tag."""
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers without a length: TEM, the restart markers and the start of the image."""
_STRIP_PIXELS: Final = 4_000_000
# Errors of decoders on damaged bytes, all of them observed. Of this module's own lines, the first
# four are faults of the program.
_DAMAGE: Final = (
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)


class UnreadableImage(ValueError):
    """An image cannot be decoded; the message gives the cause."""


def decode_image(data: bytes | AnyPath) -> np.ndarray:
    """Decode an image to RGB, turned upright by its EXIF orientation.

    Grey becomes three equal channels, 16 bits become the upper 8, what is transparent becomes grey;
    of a moving image the first frame counts. Its size is read from the header and compared with
    `MAX_IMAGE_PIXELS` before anything is decoded. A JPEG whose data ends early is refused: decoders
    fill the rest with grey, silently.

    Args:
        data: encoded bytes, or the path or address of a file.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImage: missing, empty, truncated, of no known format, or too large.
        OSError: the machine or the store does not let the file be read.
    """
    if isinstance(data, Path | RemotePath):
        try:
            data = read_file(data, MAX_IMAGE_FILE_BYTES)
        except UnreadableFile as error:
            raise UnreadableImage(f"image file: {error}") from error
    if not data:
        raise UnreadableImage("image is empty: expected encoded bytes, got 0")
    if data[:2] == b"\xff\xd8" and not _jpeg_ends(data):
        raise UnreadableImage(f"JPEG is truncated: no end marker in its {len(data)} bytes")
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow warns of large sizes, which our limits decide, and of odd metadata.
            warnings.simplefilter("ignore")
            return _decode(data)
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            f"image cannot be decoded: {len(data)} bytes of no known format"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"image is too large: {error}") from error
    except UnreadableImage:
        raise
    except _DAMAGE as error:
        if is_environment(error) or _is_ours(error):
            raise
        raise UnreadableImage(f"image cannot be decoded: {error}") from error


def _is_ours(error: BaseException) -> bool:
    """Return whether an error is a fault of this module, not of a decoder that it calls."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, _DAMAGE[:4]) and last.filename == __file__


def _decode(data: bytes) -> np.ndarray:
    """Decode an image with the library that handles its format correctly."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _check_size(image.height, image.width)
        if image.format in _PILLOW_ONLY or _is_transparent(image):
            image.load()
            # A frame may be larger than the canvas that the header speaks of.
            _check_size(image.height, image.width)
            return to_rgb(image)
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UnreadableImage(f"image cannot be decoded: {error.err}") from error
    if decoded is None:
        raise UnreadableImage(f"image cannot be decoded: its {len(data)} bytes are damaged")
    _check_size(*decoded.shape[:2])
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)


def _check_size(height: int, width: int) -> None:
    if not 0 < height * width <= MAX_IMAGE_PIXELS:
        raise UnreadableImage(
            f"image has {width} x {height} pixels, expected 1 to {MAX_IMAGE_PIXELS:,}"
        )


def _is_transparent(image: Image.Image) -> bool:
    """Return whether an image has an alpha channel, or a transparent colour or palette entry."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def to_rgb(image: np.ndarray | Image.Image) -> np.ndarray:
    """Return an image that is in memory already, as the reader would return it.

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
    """Return samples of any supported type as uint8."""
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
    """Return (H, W, 4) uint8 over grey, some rows at a time to bound the memory of the sums."""
    height, width = image_rgba.shape[:2]
    flat = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = image_rgba[top : top + rows]
        alpha = strip[:, :, 3:].astype(np.uint32)
        mixed = strip[:, :, :3] * alpha + TRANSPARENT_GREY * (255 - alpha)
        flat[top : top + rows] = (mixed + 127) // 255
    return flat


def _pil_array(image: Image.Image) -> np.ndarray:
    """Return a PIL image, upright, as an array that `to_rgb` understands."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise UnreadableImage(
            f"image: expected a numpy array or a PIL image, got {type(image).__name__}"
        )
    if image.getexif().get(_ORIENTATION, 1) != 1:
        # which makes a copy, of any image
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # PIL reads 16-bit grey as 32-bit integers in some formats
        return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    mode = "RGBA" if _is_transparent(image) else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _jpeg_ends(data: bytes) -> bool:
    """Return whether a JPEG's image is whole; phones append videos and depth maps."""
    if _END_OF_IMAGE in data[-64:]:
        return True
    position = 2
    while True:
        # Any number of fill bytes may precede a marker, and decoders skip them.
        position = data.find(b"\xff", position)
        while position >= 0 and data[position : position + 1] == b"\xff":
            position += 1
        if position < 0 or position >= len(data):
            return False
        marker = data[position]
        position += 1
        if marker == _START_OF_SCAN:
            # inside the scan every 0xff of the data is followed by a zero
            return data.find(_END_OF_IMAGE, position) >= 0
        if marker not in _STANDALONE and marker != 0:
            position += int.from_bytes(data[position : position + 2], "big")


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
