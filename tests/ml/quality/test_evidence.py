"""Colours of faces: measured in the middle of the box, images that cannot be read left out."""

from pathlib import Path

import numpy as np
import pandas as pd

from ml.imaging.io import UnreadableImage
from ml.quality.evidence import face_colours
from ml.records.flame_layout import NUM_FLAME_PARAMETERS
from ml.records.shards import DamagedSample

SKIN, WALL = (200, 120, 90), (10, 20, 30)
FRONTAL = np.zeros(NUM_FLAME_PARAMETERS, np.float32)
# The first two columns of diag(1, -1, -1): FLAME's y points up, the image's down.
FRONTAL[[403, 407]] = 1.0, -1.0


def head(item: str, tone: int, visible: float = 1.0) -> dict:
    box = np.array([20.0, 20.0, 40.0, 40.0], np.float32)
    return {
        "sample_id": item, "flame": FRONTAL, "bbox_xywh": box, "visible": visible,
        "skin_tone": tone,
    }  # fmt: skip


def read(item: str) -> np.ndarray:
    if item == "cut":
        raise UnreadableImage("cut")
    if item == "torn":
        raise DamagedSample(Path("shard-00000.tar"), item, "cut")
    image = np.full((80, 80, 3), WALL, np.uint8)
    image[20:60, 20:60] = SKIN
    return image


def test_the_middle_of_a_seen_face_is_measured_and_what_is_unreadable_left_out():
    truth = pd.DataFrame(
        [head("a", 3), head("cut", 5), head("torn", 6), head("b", 9), head("b", 1, visible=0.2)]
    )
    colours = face_colours(truth, read)
    luma = (np.mean(SKIN) + 3 * np.mean(WALL)) / 4
    np.testing.assert_allclose(colours, [[*SKIN, 3, luma], [*SKIN, 9, luma]])


def test_nothing_readable_is_no_colour():
    assert face_colours(pd.DataFrame([head("cut", 5)]), read).shape == (0, 5)
