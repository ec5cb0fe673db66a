"""Comparison of images by content: rescaled or re-encoded copies have other bytes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.imaging.io import UnreadableImage, decode_image

SIDE: Final = 32
"""Size of an image's thumbnail, px."""
MIN_CORRELATION: Final = 0.985
"""Of two thumbnails of the same image; JPEG at quality 60 and half the size give over 0.99."""
_FLAT: Final = 2.0
"""Standard deviation of grey below which a thumbnail is too uniform to be recognised."""
_EMBEDDED = re.compile(rb"data:image/(?:jpeg|png|webp|gif);base64,([A-Za-z0-9+/=]{64,})")

Signature = NDArray[np.float32]


def signature(image_rgb: NDArray[np.uint8]) -> Signature | None:
    """Return the signature by which an image is compared.

    Args:
        image_rgb: (H, W, 3) uint8 RGB.

    Returns:
        (SIDE * SIDE,) float32 of length 1, mean 0; None for an image of one colour.
    """
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    if float(small.std()) < _FLAT:
        return None
    return np.asarray(small.reshape(-1) / np.linalg.norm(small), np.float32)


def resembles(data: bytes, signatures: list[Signature]) -> bool:
    """Return whether encoded bytes show one of some images.

    Args:
        data: any bytes; those that do not decode resemble nothing.
        signatures: of the images.
    """
    try:
        found = signature(decode_image(data))
    except UnreadableImage:
        return False
    return found is not None and any(float(found @ s) >= MIN_CORRELATION for s in signatures)


def embedded_images(data: bytes) -> Iterator[bytes]:
    """Yield images embedded in a text as base64, as in pages and event logs.

    Args:
        data: the text, or a database's file.

    Yields:
        Encoded images.
    """
    for match in _EMBEDDED.finditer(data):
        try:
            yield base64.b64decode(match[1])
        except binascii.Error:
            continue
