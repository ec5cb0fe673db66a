"""WIDER FACE's easy, medium and hard average precision, as the public Python port computes them.

Its rules: boxes reach one pixel further than x + w and y + h; scores are rescaled to 0..1 over the
whole run; a detection belongs to the true face it overlaps most; if the difficulty excludes that
face, the detection counts neither way; the first detection of a face finds it, any other is wrong;
precision and recall are taken at 1,000 thresholds and the area under them as VOC 2010 does. The
MATLAB tool differs: 51.2 where the port says 51.9 on the hard faces of one published run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from ml.benchmarks.scores import RESAMPLES, Scores
from ml.evaluation.metrics import bootstrap_intervals
from ml.imaging.boxes import box_iou
from ml.records.ids import sample_rng

PROTOCOL = "wider-python"
NUM_THRESHOLDS = 1000
IOU_THRESHOLD = 0.5
_ONE_PIXEL_MORE = np.array([0.0, 0.0, 1.0, 1.0])


@dataclass(frozen=True)
class ImageMatches:
    """Outcome of an image's detections under each difficulty.

    Attributes:
        scores: (D,) confidences, falling.
        first_hits: difficulty -> (D,) bool, the detection finds a face of this difficulty.
        counted: difficulty -> (D,) bool, the detection counts; without it, it is neutral.
        num_true: difficulty -> number of its faces.
    """

    scores: np.ndarray
    first_hits: Mapping[str, np.ndarray]
    counted: Mapping[str, np.ndarray]
    num_true: Mapping[str, int]


def match_image(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    true_xyxy: np.ndarray,
    kept: Mapping[str, np.ndarray],
) -> ImageMatches:
    """Match the detections of one image.

    Args:
        boxes_xyxy: (D, 4) detections, px, corners at x + w and y + h.
        scores: (D,) confidences.
        true_xyxy: (T, 4) all rows of the ground truth, of any difficulty.
        kept: difficulty -> (T,) bool, its faces.

    Returns:
        The decisions, in order of falling score, equal scores in the order given.
    """
    order = np.argsort(-scores, kind="stable")
    num_true = {name: int(mask.sum()) for name, mask in kept.items()}
    everything = {name: np.ones(len(order), bool) for name in kept}
    nothing = {name: np.zeros(len(order), bool) for name in kept}
    if not len(true_xyxy) or not len(order):
        return ImageMatches(scores[order], nothing, everything, num_true)
    overlaps = box_iou(boxes_xyxy[order] + _ONE_PIXEL_MORE, true_xyxy + _ONE_PIXEL_MORE)
    face = overlaps.argmax(axis=1)
    hits = overlaps[np.arange(len(order)), face] >= IOU_THRESHOLD
    first = np.zeros(len(order), bool)
    first[np.flatnonzero(hits)[np.unique(face[hits], return_index=True)[1]]] = True
    return ImageMatches(
        scores[order],
        {name: first & mask[face] for name, mask in kept.items()},
        {name: ~(hits & ~mask[face]) for name, mask in kept.items()},
        num_true,
    )


def stretched(scores: np.ndarray) -> np.ndarray:
    """Return scores of a whole run rescaled to 0..1; equal scores become 1 instead of 0 / 0."""
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def voc_average_precision(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return the area under precision made monotone, at every step of recall (VOC 2010 on).

    Args:
        recall: (..., K) rising.
        precision: (..., K).

    Returns:
        (...) areas.
    """
    edge = np.zeros((*recall.shape[:-1], 1))
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return (np.diff(np.concatenate([edge, recall], axis=-1), axis=-1) * envelope).sum(axis=-1)


class WiderEvaluation:
    """Counts of each image at each threshold; metrics of any bootstrap draw follow from them."""

    def __init__(self, matches: Sequence[ImageMatches]) -> None:
        """Count the detections of each image between neighbouring thresholds.

        Args:
            matches: those of each image.
        """
        self.num_images = len(matches)
        self.difficulties = tuple(matches[0].num_true) if matches else ()
        image = np.repeat(np.arange(self.num_images), [len(m.scores) for m in matches])
        scores = stretched(np.concatenate([m.scores for m in matches] or [np.zeros(0)]))
        thresholds = 1 - np.arange(1, NUM_THRESHOLDS + 1) / NUM_THRESHOLDS
        # the first threshold that lets each detection pass
        bins = np.searchsorted(-thresholds, -scores, side="left")
        self._hits: dict[str, csr_matrix] = {}
        self._counted: dict[str, csr_matrix] = {}
        self.num_true: dict[str, np.ndarray] = {}
        for name in self.difficulties:
            for target, field in ((self._hits, "first_hits"), (self._counted, "counted")):
                flags = np.concatenate([getattr(m, field)[name] for m in matches])
                cells = (flags[flags].astype(float), (image[flags], bins[flags]))
                target[name] = csr_matrix(cells, shape=(self.num_images, NUM_THRESHOLDS))
            self.num_true[name] = np.array([m.num_true[name] for m in matches])

    def curve(
        self, difficulty: str, weights: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return recall and precision at the thresholds for given multiplicities of the images.

        Args:
            difficulty: easy, medium or hard.
            weights: (images,) multiplicity of each image; once by default.

        Returns:
            (1000,) recall and (1000,) precision, thresholds falling; precision is 0 where nothing
            counts.
        """
        weights = np.ones(self.num_images) if weights is None else weights
        hits = np.cumsum(weights @ self._hits[difficulty])
        counted = np.cumsum(weights @ self._counted[difficulty])
        faces = max(float(weights @ self.num_true[difficulty]), 1.0)
        return hits / faces, hits / np.maximum(counted, 1.0)

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """Return `ap_easy`, `ap_medium`, `ap_hard`; NaN where a difficulty has no face."""
        weights = np.ones(self.num_images) if weights is None else weights
        return {
            f"ap_{name}": float(voc_average_precision(*self.curve(name, weights)))
            if weights @ self.num_true[name]
            else float("nan")
            for name in self.difficulties
        }


def score_wider(
    matches: Sequence[ImageMatches], seed: int = 0, resamples: int = RESAMPLES
) -> Scores:
    """Return the average precision of each difficulty.

    Args:
        matches: those of each image.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        The scores with intervals and counts.
    """
    evaluation = WiderEvaluation(matches)
    counts = {"num_images": evaluation.num_images}
    for name in evaluation.difficulties:
        counts[f"num_faces_{name}"] = int(evaluation.num_true[name].sum())
        found = sum(int(m.first_hits[name].sum()) for m in matches)
        counts[f"num_missed_{name}"] = counts[f"num_faces_{name}"] - found
    return Scores(
        PROTOCOL,
        evaluation.metrics(),
        bootstrap_intervals(
            lambda draw: evaluation.metrics(
                np.bincount(draw, minlength=evaluation.num_images).astype(float)
            ),
            evaluation.num_images,
            sample_rng(seed, "benchmarks", PROTOCOL),
            resamples,
        ),
        counts,
        ("as the public Python port computes it; MATLAB is 0.7 points lower on hard faces",),
    )
