"""The images of docs/head_model.md: `python -m docs.head_model_images`.

Look at what it made before you commit it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from ml.flame.head_model import HeadModel
from ml.flame.open_head import build_open_head
from ml.flame.views import component_steps, turntable
from ml.generation.config import SingleHeadConfig
from ml.generation.renderer.single_head import render_single_head
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.records.atomic import write_bytes
from ml.records.ids import sample_rng

FOLDER: Final = Path(__file__).parent / "images"
_HEAD_PX: Final = 128
_IMAGE_PX: Final = 200
_QUALITY: Final = 85


def people(model: HeadModel, count: int = 16) -> np.ndarray:
    """Return rendered people, heads of about 128 px, uint8 RGB.

    Args:
        model: the head model.
        count: how many.
    """
    config = SingleHeadConfig(
        yaw_std_deg=30.0, any_yaw_fraction=0.2, hand_probability=0.0, neighbour_probability=0.0
    )
    images = []
    for number in range(count):
        rng = sample_rng(0, "head_model", f"docs-{number}")
        head = render_single_head(model, config, rng, round(_HEAD_PX * 9 / 4))
        middle = 0.5 * (head.box_xyxy[:2] + head.box_xyxy[2:])
        start = np.clip(middle - _IMAGE_PX / 2, 0, len(head.image_rgb) - _IMAGE_PX).astype(int)
        images.append(
            head.image_rgb[start[1] : start[1] + _IMAGE_PX, start[0] : start[0] + _IMAGE_PX]
        )
    return contact_sheet(images, 8, _IMAGE_PX)


def main() -> None:
    """Write the images."""
    model = build_open_head()
    sheets = {
        "head_model_sides": turntable(model),
        "head_model_shape": component_steps(model, "shape"),
        "head_model_expression": component_steps(model, "expression"),
        "head_model_people": people(model),
    }
    for name, sheet in sheets.items():
        write_bytes(FOLDER / f"{name}.jpg", encode_jpeg(sheet, _QUALITY))


if __name__ == "__main__":
    main()
