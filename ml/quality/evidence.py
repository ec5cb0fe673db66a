"""What pixels say about the truth: skin is where heads are said to be, as dark as it is said to be.

Whatever mirrors, shifts, exchanges or recolours images and leaves the tables alone shows here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.imaging.io import UnreadableImage
from ml.quality.distributions import from_frontal_deg
from ml.quality.head_invariants import vectors
from ml.records.flame_layout import NUM_FLAME_PARAMETERS
from ml.records.shards import DamagedSample

SEEN_FROM_DEG = 60.0
"""Heads turned further show less face than hair."""
MIN_VISIBLE = 0.7
MIN_SIDE_PX = 12.0


def face_colours(
    truth: pd.DataFrame, read: Callable[[str], NDArray[np.uint8]]
) -> NDArray[np.float64]:
    """Return colours of faces with their labelled tone.

    Args:
        truth: rows of TRUTH of some images.
        read: id of an image -> (H, W, 3) uint8 RGB; images that cannot be read are left out.

    Returns:
        (N, 5) of heads that show their face: mean red, green and blue in the middle of the box, 0
        to 255, Monk tone, and the mean luma of the whole image.
    """
    flame = vectors(truth["flame"], NUM_FLAME_PARAMETERS).astype(np.float32)
    box = vectors(truth["bbox_xywh"], 4)
    shown = from_frontal_deg(flame) < SEEN_FROM_DEG
    shown &= (truth["visible"].to_numpy() >= MIN_VISIBLE) & (box[:, 2:].min(axis=1) >= MIN_SIDE_PX)
    rows = []
    for item, places in truth.assign(place=np.arange(len(truth)))[shown].groupby("sample_id")[
        "place"
    ]:
        try:
            image = read(str(item))
        except (DamagedSample, UnreadableImage):
            # Named by the check of the bytes; the other images say what they say without it.
            continue
        luma = float(image.mean())
        for place in places:
            left, top, width, height = box[place]
            x = slice(int(left + 0.35 * width), int(left + 0.65 * width) + 1)
            y = slice(int(top + 0.45 * height), int(top + 0.75 * height) + 1)
            part = image[y, x].reshape(-1, 3)
            if len(part):
                rows.append([*part.mean(axis=0), float(truth["skin_tone"].iloc[place]), luma])
    return np.array(rows, np.float64).reshape(-1, 5)


def colour_statistics(colours: NDArray[np.float64]) -> dict[str, float]:
    """Return how well faces show.

    Args:
        colours: from `face_colours`.

    Returns:
        `face_red`: fraction of faces with more red than blue; `tone_seen`: correlation of a face's
        luma, relative to its image, with its Monk tone, negative where darker tones are darker.
        NaN with fewer than three faces.
    """
    if len(colours) < 3:
        return {"face_red": float("nan"), "tone_seen": float("nan")}
    luma = colours[:, :3] @ (0.299, 0.587, 0.114)
    relative = np.log((luma + 1) / (colours[:, 4] + 1))
    return {
        "face_red": float((colours[:, 0] > colours[:, 2]).mean()),
        "tone_seen": float(np.corrcoef(relative, colours[:, 3])[0, 1]),
    }
