"""Writing images as the sets hold them: JPEG or PNG by the file's ending."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ml.imaging.io import encode_jpeg, encode_png
from ml.records.atomic import write_bytes


def write_image(path: Path, image_rgb: np.ndarray) -> None:
    """Write an image.

    Args:
        path: a .png file, or one of any other ending, which becomes a JPEG.
        image_rgb: (H, W, 3) uint8 RGB.
    """
    encode = encode_png if path.suffix.lower() == ".png" else encode_jpeg
    write_bytes(path, encode(image_rgb))
