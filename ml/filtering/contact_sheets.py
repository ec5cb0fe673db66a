"""Contact sheets of kept and removed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2

from ml.box_detection.base import Image
from ml.filtering.judge import Judgement
from ml.filtering.rules import CUT_COUNT, KEEP
from ml.imaging.drawing import draw_boxes, enlarge
from ml.imaging.grids import contact_sheet
from ml.imaging.io import encode_jpeg
from ml.records.atomic import write_bytes

HEADS_RGB = (60, 220, 90)
FLIPPED_RGB = (255, 120, 40)
PARTS_RGB = (90, 150, 255)
FACES_RGB = (240, 70, 200)
_CELL_PX = 256


def judged_image(image: Image, judgement: Judgement) -> Image:
    """Return an image with the boxes its verdict rests on.

    Heads are green, those of the mirrored image orange, those of the two parts blue with the cut as
    a line, faces pink. A kept image shows its heads only.

    Args:
        image: (H, W, 3) uint8 RGB.
        judgement: its verdict.

    Returns:
        (H', W', 3) uint8 RGB, small images enlarged.
    """
    zoom = max(1, _CELL_PX // max(image.shape[:2]))
    canvas = draw_boxes(enlarge(image, zoom), judgement.boxes, HEADS_RGB, zoom=zoom)
    if judgement.keep:
        return canvas
    if judgement.finding.reason == CUT_COUNT and judgement.column is not None:
        x = judgement.column * zoom
        cv2.line(canvas, (x, 0), (x, canvas.shape[0] - 1), PARTS_RGB, 1)
        canvas = draw_boxes(canvas, judgement.boxes_parts - 2, PARTS_RGB, zoom=zoom)
    else:
        # Shifted a little: equal boxes would hide each other.
        canvas = draw_boxes(canvas, judgement.boxes_flipped + 2, FLIPPED_RGB, zoom=zoom)
    if judgement.faces is not None:
        canvas = draw_boxes(canvas, judgement.faces, FACES_RGB, zoom=zoom)
    return canvas


def write_images(
    folder: Path,
    sheets: Mapping[str, Sequence[str]],
    drawn: Mapping[str, Image],
    judgements: Mapping[str, Judgement],
) -> dict[str, Path]:
    """Write one sheet for each reason.

    Args:
        folder: receives `kept.jpg` and `removed_<reason>.jpg`.
        sheets: ids of the images of each sheet, by reason.
        drawn: the images, by id.
        judgements: the verdicts, by id.

    Returns:
        Paths by the files' names without suffix.
    """
    paths = {}
    for reason, sample_ids in sheets.items():
        name = "kept" if reason == KEEP else f"removed_{reason}"
        labels = [_label(judgements[sample_id]) for sample_id in sample_ids]
        sheet = contact_sheet([drawn[i] for i in sample_ids], 6, _CELL_PX, labels)
        paths[name] = folder / f"{name}.jpg"
        write_bytes(paths[name], encode_jpeg(sheet))
    return paths


def _label(judgement: Judgement) -> str:
    """Return the counts in a few characters."""
    text = f"{len(judgement.boxes)} heads"
    if judgement.keep:
        return text
    if judgement.column is not None:
        return f"{text}, cut {judgement.num_heads_halves}"
    return f"{text}, mirrored {judgement.num_heads_flipped}"
