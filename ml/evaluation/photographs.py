"""Photographs shipped with installed libraries: qualitative examples on real images.

They are not a benchmark: a handful of well-known images without ground truth.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from ml.imaging.io import decode_image

PHOTOGRAPHS: Final[dict[str, tuple[str, str]]] = {
    "an astronaut": ("skimage", "data/astronaut.png"),
    "an officer": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "a photographer, grey": ("skimage", "data/camera.png"),
    "a cat (no person)": ("skimage", "data/chelsea.png"),
    "a cup (no person)": ("skimage", "data/coffee.png"),
    "a rocket (no person)": ("skimage", "data/rocket.jpg"),
}
"""Title -> package and path in it. All are free to use (public domain or CC0)."""


def read_photographs() -> dict[str, np.ndarray]:
    """Read the photographs of those packages that are installed.

    Returns:
        Title -> (H, W, 3) uint8 RGB, in the order of `PHOTOGRAPHS`.
    """
    found = {}
    for title, (package, name) in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin).parent / name
        if path.exists():
            found[title] = decode_image(path)
    return found
