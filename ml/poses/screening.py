"""Which source images are looked at: by label, size and shape, before a pixel is decoded."""

from __future__ import annotations

import io
import warnings

import numpy as np

from ml.imaging.io import UnreadableImage, decode_image
from ml.poses.config import SourceConfig
from ml.poses.sources import Problem, SourceImage
from ml.records import reasons


def screen(image: SourceImage, config: SourceConfig) -> np.ndarray | Problem:
    """Judge a source image and decode it.

    Args:
        image: from the source.
        config: what is refused.

    Returns:
        (H, W, 3) uint8 RGB, or why the image is refused.

    Source:
        Paper 3.1: images that LAION calls NSFW or unsure, and those more than twice as long as
        wide, are left out.
    """
    if image.problem is not None:
        return image.problem
    if not image.label and config.require_label:
        return Problem(
            reasons.NO_SAFETY_LABEL, f"the source has no field {config.label_field} for it"
        )
    if image.label in config.refused_labels:
        return Problem(reasons.UNSAFE_LABEL, f"{config.label_field} is {image.label}")
    size = _stated_size(image.data)
    if isinstance(size, Problem):
        return size
    width, height = size
    if width * height > config.max_pixels:
        return Problem(reasons.TOO_LARGE, f"{width} x {height} px, more than {config.max_pixels}")
    if max(width, height) > config.max_aspect * min(width, height):
        return Problem(
            reasons.ASPECT_RATIO,
            f"{width} x {height} px, expected at most {config.max_aspect:g} to 1",
        )
    try:
        return decode_image(image.data)
    except UnreadableImage as error:
        return Problem(reasons.DAMAGED_IMAGE, str(error))


def canvas_size(width: int, height: int, config: SourceConfig) -> tuple[int, int]:
    """Return the size of the image to be made of a source image.

    The shorter side gets `min_side_px` unless the longer one would exceed `max_side_px`.

    Args:
        width: of the source, px.
        height: of the source, px.
        config: sides and their multiple.

    Returns:
        Width and height, px.
    """
    scale = min(config.min_side_px / min(width, height), config.max_side_px / max(width, height))

    def rounded(side: int) -> int:
        multiple = config.size_multiple
        longest = config.max_side_px // multiple * multiple
        return min(max(multiple, round(side * scale / multiple) * multiple), longest)

    return rounded(width), rounded(height)


def _stated_size(data: bytes) -> tuple[int, int] | Problem:
    """Return the width and height from the header; a bomb is refused before it unpacks."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # The caller has a limit of its own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
                return image.size
    except Image.DecompressionBombError:
        return Problem(reasons.TOO_LARGE, "the header states a size that no photograph has")
    except (OSError, ValueError, SyntaxError) as error:
        return Problem(
            reasons.DAMAGED_IMAGE, f"no header of JPEG, PNG or WebP: {type(error).__name__}"
        )
