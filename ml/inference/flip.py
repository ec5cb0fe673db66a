"""Flip test: average the detections of every image and its mirrored image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ml.flame.projection import MirrorMaps, mean_flame, mirror_flame
from ml.imaging.matching import match_heads
from ml.inference.predictor import DEFAULT_BATCH, HeadPredictor
from ml.model.postprocess import PostprocessConfig
from ml.records.heads import Heads

SAME_HEAD_IOU = 0.5
"""Boxes of the two passes that overlap by at least this much are one head."""


class FlipAveraged:
    """A detector run on image and mirror image ("flip test" of pose estimators).

    A head that both passes find gets the mean of boxes, scores and parameters; one that a single
    pass finds keeps its box and half of its score. Takes twice the time.
    """

    def __init__(self, predictor: HeadPredictor, maps: MirrorMaps) -> None:
        """Keep both.

        Args:
            predictor: the detector, which runs twice.
            maps: the head model, with its mirror maps.
        """
        self._predictor = predictor
        self._maps = maps

    def predict(
        self,
        images_rgb: Sequence[NDArray[np.uint8]],
        batch_size: int = DEFAULT_BATCH,
        postprocessing: PostprocessConfig | None = None,
    ) -> list[Heads]:
        """Find the heads of each image.

        Args:
            images_rgb: (H, W, 3) uint8 RGB images of any sizes.
            batch_size: images at once.
            postprocessing: thresholds of each pass; those of the predictor if left out.

        Returns:
            Heads of each image by falling score, in that image's pixels.
        """
        mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images_rgb]
        seen = self._predictor.predict(images_rgb, batch_size, postprocessing)
        other = self._predictor.predict(mirrored, batch_size, postprocessing)
        return [
            merge(heads, mirror_heads(found, image.shape[1], self._maps))
            for heads, found, image in zip(seen, other, images_rgb, strict=True)
        ]


def mirror_heads(heads: Heads, width_px: float, maps: MirrorMaps) -> Heads:
    """Return the heads of the horizontally mirrored image.

    Args:
        heads: heads of an image.
        width_px: its width, px.
        maps: the head model, with its mirror maps.

    Returns:
        The same heads in the frame of the mirrored image.
    """
    boxes = heads.boxes_xyxy[:, [2, 1, 0, 3]].copy()
    boxes[:, [0, 2]] = width_px - boxes[:, [0, 2]]
    flame = mirror_flame(torch.from_numpy(heads.flame), width_px, maps).numpy()
    return Heads(boxes, heads.scores, flame)


def merge(first: Heads, second: Heads) -> Heads:
    """Return one list of heads from two of the same image.

    Args:
        first: heads of one pass, by falling score.
        second: heads of the other.

    Returns:
        Each head once, by falling score.
    """
    found = match_heads(
        first.boxes_xyxy, first.scores, second.boxes_xyxy, iou_threshold=SAME_HEAD_IOU
    )
    own, partners = found.pairs.T
    alone = (first[found.false_positives], second[found.missed])
    parts = [
        _mean(first[own], second[partners]),
        *(Heads(heads.boxes_xyxy, heads.scores / 2, heads.flame) for heads in alone),
    ]
    joined = Heads(
        np.concatenate([part.boxes_xyxy for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.flame for part in parts]),
    )
    return joined[np.argsort(-joined.scores, kind="stable")]


def _mean(first: Heads, second: Heads) -> Heads:
    flame = mean_flame(torch.from_numpy(first.flame), torch.from_numpy(second.flame))
    return Heads(
        (first.boxes_xyxy + second.boxes_xyxy) / 2,
        (first.scores + second.scores) / 2,
        flame.numpy(),
    )
